"""`zoo bench`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import Overrides, app
from zoo.core.errors import ConfigError


@app.command("bench")
def bench_command(
    overrides: Overrides = None,
    against: Annotated[str, typer.Option(help="bare: a loop written by hand, in turn; or none")] = "bare",
    rounds: Annotated[int, typer.Option(min=1, help="of each, in turn")] = 10,
    seconds: Annotated[float, typer.Option(min=0.0, help="that a round lasts")] = 0.5,
    sweep: Annotated[bool, typer.Option(help="every recipe that is trained, in one table")] = False,
    record: Annotated[Path | None, typer.Option(help="file to write everything into, as JSON")] = None,
    grow: Annotated[str, typer.Option(help="time and memory over a setting: data.batch_size=32,64,128")] = "",
    sampling: Annotated[bool, typer.Option(help="how fast it draws, in place of how fast it trains")] = False,
) -> None:
    """Measure how fast a recipe trains on this machine, and how near that is to a loop written by hand."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # torch's profiler counts memory here; it need not talk
    from zoo.benchmarks.throughput import Timing, bench

    if against not in ("bare", "none"):
        raise ConfigError(f"--against {against} is nothing to compare with: take bare, or none.")
    bench(overrides or (), Timing(rounds, seconds, bare=against == "bare"), sweep, record, grow, sampling)
