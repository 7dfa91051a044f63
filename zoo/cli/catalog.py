"""`zoo list` and `zoo info`."""

from typing import Annotated

import typer

from zoo.cli.app import app
from zoo.core.errors import ConfigError


def complete_name(incomplete: str) -> list[str]:
    """Complete a name for `zoo info`: models and data, or GROUP/NAME."""
    from zoo.config.recipes import CHOOSERS, groups, recipes

    found = {group: list(recipes(group)) for group in groups()}
    names = [name for kind in CHOOSERS for name in found[kind]]
    names += [f"{group.rpartition('/')[2]}/{name}" for group in found for name in found[group] if "/" in incomplete]
    return sorted({name for name in names if name.startswith(incomplete)})


@app.command("list")
def list_command(
    pattern: Annotated[str, typer.Argument(help="shell wildcard, such as '*gan*'")] = "*",
    markdown: Annotated[bool, typer.Option(help="as Markdown tables")] = False,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="trained models that sample at once")] = False,
) -> None:
    """List models and data, or pretrained models."""
    from zoo.api import list_data, list_models, list_pretrained, model_info, pretrained_table, tables

    if markdown:
        print(pretrained_table() if pretrained else tables())
        return
    if pretrained:
        found = list_pretrained(pattern)
        if not found:
            raise ConfigError(f"pattern={pattern!r}: no match. `zoo list --pretrained` shows all.")
        width = max(map(len, found))
        for name, model in found.items():
            print(f"{name:<{width}} {model.summary}, {model.size / 1e6:.2f} MB")
        print("Use one as a run: zoo sample NAME, zoo serve NAME, zoo.load(NAME); zoo pretrained NAME shows its facts.")
        return

    families: dict[str, list[str]] = {}
    for name in list_models(pattern):
        info = model_info(name)
        families.setdefault(info.family, []).append(f"  {name:<16} {info.summary}")
    for family, lines in sorted(families.items()):
        print(family, *lines, sep="\n")
    data = list_data(pattern)
    if data:
        print("data", *(f"  {name:<16} {summary}" for name, summary in data.items()), sep="\n")
    if not families and not data:
        raise ConfigError(f"pattern={pattern!r}: no match. `zoo list` shows everything.")


@app.command("info")
def info_command(name: Annotated[str, typer.Argument(autocompletion=complete_name)]) -> None:
    """Describe a model, data set, network, trainer or experiment (`encoder/resnet`) with all settings."""
    from zoo.api import describe

    print(describe(name))
