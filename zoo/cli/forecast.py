"""`zoo forecast`."""

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.app import RUN, app


@app.command("forecast")
def forecast_command(
    run: Annotated[str, typer.Argument(help=RUN)],
    data: Annotated[list[str] | None, typer.Argument(help="data.path=FILE: newer or other series")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="steps to add (default: the horizon of the data)")] = None,
    n: Annotated[int, typer.Option("-n", min=2, help="samples of the future, for the quantiles")] = 200,
    quantiles: Annotated[str, typer.Option(help="levels between 0 and 1")] = "0.1,0.5,0.9",
    seed: Annotated[int, typer.Option(help="equal seeds give equal forecasts")] = 0,
    out: Annotated[Path | None, typer.Option(help="a .csv file; default: samples/forecast.csv of the run")] = None,
    device: str = "cpu",
) -> None:
    """Continue the end of each time series, and write quantiles as CSV and a fan chart."""
    from zoo.cli.forecast_series import forecast

    forecast(run, data or (), steps=steps, n=n, quantiles=quantiles, seed=seed, out=out, device=device)
