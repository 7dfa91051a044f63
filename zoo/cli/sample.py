"""`zoo sample`."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import RUN, app


@app.command("sample")
def sample_command(
    run: Annotated[str, typer.Argument(help=RUN)],
    options: Annotated[
        list[str] | None,
        typer.Argument(
            help="KEY=VALUE: options of the model's sampler, such as temperature=0.8 stop=[END] ema=false; "
            "condition=3 for a class label"
        ),
    ] = None,
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="samples (default 64), or continuations of each prompt (default 1)")
    ] = None,
    seed: Annotated[int, typer.Option(help="equal seeds give equal samples")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="a file (.png .jpg .npy .txt .jsonl .csv .wav .mid, by the kind of data) or new folder"),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="text to continue, or that describes the image; repeatable")
    ] = None,
    device: str = "cpu",
) -> None:
    """Draw samples from a trained model."""
    from zoo.cli.draw import draw

    draw(run, n, options=options or (), seed=seed, out=out, prompts=prompt or (), device=device)
