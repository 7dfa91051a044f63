"""`zoo ema`."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import app


@app.command("ema")
def ema_command(
    run: Annotated[Path, typer.Argument(help="a run folder, trained with callbacks=posthoc_ema")],
    std: Annotated[float, typer.Option(help="width of the average, relative to the length of the training")],
    out: Annotated[Path | None, typer.Option(help="a .safetensors file; by default in the run folder")] = None,
) -> None:
    """Average the weights of a training with another width, after the training."""
    from zoo.runs.posthoc_ema import make_average

    print(make_average(run, std, out))
