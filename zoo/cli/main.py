"""The `zoo` command: one module for each verb, and the verbs of plug-ins (entry-point group `zoo.commands`)."""

import os
import warnings
from importlib.metadata import entry_points

from zoo.cli import (  # noqa: F401  # each adds its verb
    answer,
    bench,
    caption,
    catalog,
    chat,
    edit,
    ema,
    embed,
    evaluate,
    export,
    features,
    feedback,
    forecast,
    index,
    pretrained,
    publish,
    recommend,
    sample,
    serve,
    train,
)
from zoo.cli.app import app, fail, tolerate_encodings
from zoo.core.errors import ZooError
from zoo.core.lazy_imports import install
from zoo.io.atomic import NO_ROOM

GROUP = "zoo.commands"


def add_plugin_commands() -> None:
    """Add the verbs of installed plug-ins: functions with a signature for typer, or `typer.Typer` groups.

    A plug-in whose import fails, or whose verb exists already, is skipped with a warning.
    """
    taken = {command.name for command in app.registered_commands} | {g.name for g in app.registered_groups}
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        if point.name in taken:
            warnings.warn(f"zoo command {point.name!r} of {point.value} is skipped: it exists already.", stacklevel=2)
            continue
        try:
            verb = point.load()
        except Exception as error:
            warnings.warn(f"zoo command {point.name!r} of {point.value} is skipped: {error!r}", stacklevel=2)
            continue
        taken.add(point.name)
        if hasattr(verb, "registered_commands"):
            app.add_typer(verb, name=point.name)
        else:
            app.command(point.name)(verb)


def main() -> None:
    """Entry point of the `zoo` command."""
    install()
    tolerate_encodings()
    if "_ZOO_COMPLETE" in os.environ:  # warnings would corrupt the prompt
        warnings.simplefilter("ignore")
    add_plugin_commands()
    try:
        app()
    except ZooError as error:
        fail(error)
    except (RuntimeError, MemoryError) as error:
        from zoo.io.memory import out_of_memory

        if not out_of_memory(error):
            raise
        fail(ZooError("out of memory: the request is too large for this machine. Ask for fewer or smaller samples."))
    except OSError as error:  # of a path that was given
        reason = (error.strerror or type(error).__name__).lower()
        if error.errno in NO_ROOM:
            fail(ZooError(f"{reason}: the output cannot be written. Make room, or choose another place for it."))
        if error.filename is None:
            raise
        fail(ZooError(f"{error.filename}: {reason}. Choose another path, or change its permissions."))
