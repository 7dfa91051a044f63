"""The `zoo` command, and functions that the verbs share."""

import io
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from zoo.core.signature import check_integer


class Commands(typer.Typer):
    """Verbs whose numbers fit into 64 bits; others would fail somewhere in torch."""

    def command(self, *given: Any, **settings: Any) -> Any:
        """Register a verb, see `typer.Typer.command`."""
        register = super().command(*given, **settings)

        def decorate(verb: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(verb)
            def checked(**values: Any) -> Any:
                for name, value in values.items():
                    option = f"-{name}" if len(name) == 1 else f"--{name.strip('_').replace('_', '-')}"
                    check_integer(option, value)
                return verb(**values)

            register(checked)
            return verb

        return decorate


app = Commands(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None)


RUN = "a run folder or checkpoint, a name of `zoo list --pretrained`, or the address of a published model"


def fail(*errors: BaseException) -> None:
    """Print one sentence for each error; exit with status 1."""
    for error in errors:
        print(f"zoo: {error}", file=sys.stderr)
    sys.exit(1)


def tolerate_encodings() -> None:
    """Write `\\u00e9` in place of a character that the encoding of the output does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the choice of `model=`, `data=`, `trainer=`, `experiment=`, `model/encoder=` ...

    Bash splits words at "=" and replaces the last part only; other shells replace the whole word.
    """
    from zoo.config.recipes import groups, recipes

    words = [*(context.params.get("overrides") or []), incomplete]
    if "=" in incomplete[1:]:
        group, _, begun = incomplete.partition("=")
        front = f"{group}="
    elif words[-2:-1] == ["="] and len(words) > 2:
        group, begun, front = words[-3], incomplete, ""
    elif incomplete == "" and len(words) > 1:  # directly after "=", which typer omits
        group, begun, front = words[-2], "", ""
    else:
        return []
    if group not in groups():
        return []
    return [f"{front}{name}" for name in recipes(group) if name.startswith(begun)]


Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="model=NAME data=NAME KEY=VALUE ..., as for `train`", autocompletion=complete_override),
]
