"""`zoo pretrained`."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import app
from zoo.core.errors import ConfigError


def complete_pretrained(incomplete: str) -> list[str]:
    """Complete the name of a pretrained model."""
    from zoo.hub.pretrained import catalogue

    return [name for name in catalogue() if name.startswith(incomplete)]


@app.command("pretrained")
def pretrained_command(
    name: Annotated[str, typer.Argument(help="of `zoo list --pretrained`", autocompletion=complete_pretrained)],
    overrides: Annotated[list[str] | None, typer.Argument(help="of --remake, in place of the recorded ones")] = None,
    remake: Annotated[bool, typer.Option("--remake", help="train and evaluate again, and compare")] = False,
    out: Annotated[Path | None, typer.Option(help="with --remake: keep the model in OUT/NAME")] = None,
    only: Annotated[list[str] | None, typer.Option(help="with --remake: suites as in `zoo evaluate`")] = None,
) -> None:
    """Show the model card of a pretrained model, or remake it by its command."""
    from zoo.hub.card import card
    from zoo.hub.pretrained import entry

    if not remake and (overrides or out):
        raise ConfigError(
            f"{(overrides or [f'--out={out}'])[0]}: an option of --remake. Add --remake, or leave it out."
        )
    if not remake:
        print(card(entry(name)))
        return
    from zoo.cli.remake import remake_pretrained

    remake_pretrained(name, overrides or (), out, only or ())
