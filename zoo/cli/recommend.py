"""`zoo recommend`."""

from typing import Annotated

import typer

from zoo.cli.app import RUN, app
from zoo.core.errors import ConfigError


@app.command("recommend")
def recommend_command(
    run: Annotated[str, typer.Argument(help=RUN)],
    items: Annotated[list[str], typer.Option(help="items of a user: a,b,c; repeatable, also for names with commas")],
    k: Annotated[int, typer.Option("-k", min=1, help="items to recommend")] = 10,
    device: str = "cpu",
) -> None:
    """Recommend items to a user of given items, by a model of interactions."""
    from zoo.interop.loading import load
    from zoo.models.abilities import SupportsRecommendation
    from zoo.models.ability import supports

    model = load(run, device).eval()
    if not supports(model, SupportsRecommendation):
        raise ConfigError(f"{run}: {model.registered_name} does not recommend items. Use a run of ease or multvae.")
    known = set(model.item_names)
    given = [name for text in items for name in ([text] if text in known else text.split(","))]
    for name, score in model.recommend([name.strip() for name in given], k):
        print(f"{score:.4f}  {name}")
