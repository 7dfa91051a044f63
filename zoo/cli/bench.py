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
    against: Annotated[str, typer.Option(help="bare: alternate with a hand-written loop; or none")] = "bare",
    rounds: Annotated[int, typer.Option(min=1, help="number of alternating rounds")] = 10,
    seconds: Annotated[float, typer.Option(min=0.0, help="duration of a round")] = 0.5,
    sweep: Annotated[bool, typer.Option(help="all recipes, in one table")] = False,
    record: Annotated[Path | None, typer.Option(help="JSON file of the results")] = None,
    grow: Annotated[str, typer.Option(help="time and memory over a setting: data.batch_size=32,64,128")] = "",
    sampling: Annotated[bool, typer.Option(help="measure sampling instead of training")] = False,
    serving: Annotated[
        Path | None, typer.Option(help="measure `zoo serve` with this run of a model of texts or images")
    ] = None,
) -> None:
    """Measure the training speed of a recipe on this machine, compared with a hand-written loop."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # silence torch's profiler
    if serving is not None:
        from zoo.benchmarks.serving import bench_serving

        bench_serving(serving, rounds, record)
        return
    from zoo.benchmarks.throughput import Timing, bench

    if against not in ("bare", "none"):
        raise ConfigError(f"--against={against}: an unknown comparison. Use bare or none.")
    bench(overrides or (), Timing(rounds, seconds, bare=against == "bare"), sweep, record, grow, sampling)
