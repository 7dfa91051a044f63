"""`zoo feedback`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import app
from zoo.core.errors import ConfigError


@app.command("feedback")
def feedback_command(
    file: Annotated[Path, typer.Argument(help="of `zoo serve --feedback FILE`")],
    entries: Annotated[bool, typer.Option("--all", help="all entries, instead of pairs of answers")] = False,
) -> None:
    """Print feedback as JSON lines: pairs of a good and a bad answer, for data=preferences."""
    from zoo.serve.feedback import FeedbackStore

    if not file.is_file():
        raise ConfigError(f"file={file}: there is no such file. Give the one of zoo serve --feedback FILE.")
    store = FeedbackStore(file)
    for each in store.entries() if entries else store.preferences():
        sys.stdout.write(json.dumps(each, ensure_ascii=False) + "\n")
