"""Forecasts of the end of time series, as CSV and as a picture."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.core import registry
from zoo.core.errors import ConfigError, DataError
from zoo.core.spaces import Series
from zoo.data.loader import make_generator
from zoo.data.series.windows import OneSeries
from zoo.evaluation.evaluate import read_run
from zoo.hub.pretrained import default_output, resolve
from zoo.io.atomic import write_text
from zoo.io.device import find_device
from zoo.models.abilities import SupportsForecasting
from zoo.models.ability import supports
from zoo.viz.images import save_picture
from zoo.viz.series import arranged, fan

DRAWN = 16  # series in the picture


@torch.no_grad()
def forecast(
    run: str | Path,
    changes: Sequence[str] = (),
    *,
    steps: int | None = None,
    n: int = 200,
    quantiles: str = "0.1,0.5,0.9",
    seed: int = 0,
    out: Path | None = None,
    device: str = "cpu",
) -> Path:
    """Continue the end of each series of a run's data; write a CSV file, and a fan chart beside it.

    Each row is one step of one series: its name, its time, and for each column the mean and the quantiles.

    Args:
        run: run folder, or a checkpoint in one.
        changes: settings of the data that differ, such as data.path=FILE for newer values.
        steps: to add; None is the horizon of the data.
        n: joint samples of the future of each series.
        quantiles: levels, with commas.
        seed: equal seeds give equal forecasts.
        out: .csv file; None is `samples/forecast.csv` in the run.
        device: of the model.

    Returns:
        The CSV file.

    Raises:
        ConfigError: a model that does not forecast series, or levels outside (0, 1).
        DataError: other columns than those of the training, or too few covariates of the future.
    """
    levels = levels_of(quantiles)
    file = out or default_output(run, "samples", "forecast.csv")
    if file.suffix.lower() != ".csv":
        raise ConfigError(f"--out={out}: not a .csv file. Use a name that ends in .csv.")
    pairs = (word.removeprefix("data.").partition("=") for word in changes)
    path, model, settings, _ = read_run(resolve(run), {key: value for key, _, value in pairs})
    space: Any = model.spec.x
    if not supports(model, SupportsForecasting) or not isinstance(space, Series):
        raise ConfigError(f"{run}: {model.display_name} does not forecast series. Use a run of deepar or var.")
    data: Any = registry.build("data", settings, where="data")
    data.setup()
    if data.spec.x.columns != space.columns or data.spec.condition != model.spec.condition:
        raise DataError(f"{path} was trained on {', '.join(space.columns)}. Give data with these columns.")
    data.check_model(model)
    model = model.to(find_device(device)).eval()
    ends, horizon = data.ends(), steps or space.horizon
    rows: list[list[str]] = []
    pictures = []
    for number, one in enumerate(ends):
        past = one.x[-space.history :]
        known = covariates_of(one, len(past), horizon) if isinstance(model.spec.condition, Series) else None
        chance = make_generator(seed, number)
        paths = model.forecast(past[None], horizon, n, condition=known, generator=chance)[0].cpu()
        rows += lines_of(one, paths, levels, bool(data.id_name))
        if number < DRAWN:
            pictures.append(fan(torch.cat([past, past.new_full(paths.shape[1:], torch.nan)]), paths, space.columns[0]))
    heading = [data.id_name] * bool(data.id_name) + [data.time_name]
    heading += [name for c in space.columns for name in (c, *(f"{c}_{level:g}" for level in levels))]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heading, *rows])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text.getvalue())
    save_picture(file.with_suffix(".png"), arranged(pictures))
    print(file, file.with_suffix(".png"), sep="\n")
    return file


def levels_of(text: str) -> list[float]:
    """Levels of quantiles, increasing.

    Raises:
        ConfigError: not numbers between 0 and 1.
    """
    try:
        levels = sorted({float(word) for word in text.split(",")})
    except ValueError:
        levels = [0.0]
    if not all(0 < level < 1 for level in levels):
        raise ConfigError(f"--quantiles={text}: not numbers between 0 and 1. Write them as 0.1,0.5,0.9.")
    return levels


def covariates_of(one: OneSeries, past: int, horizon: int) -> Tensor:
    """Covariates of the last steps and of the future, (1, past + horizon, C).

    Raises:
        DataError: too few steps of the future.
    """
    size = len(one.x)
    if len(one.covariates) < size + horizon:
        raise DataError(
            f"data.covariates: {len(one.covariates) - size} steps after the end of the series, and {horizon} are "
            f"needed. Add rows with covariates and empty values, or set --steps."
        )
    return one.covariates[None, size - past : size + horizon]


def lines_of(one: OneSeries, paths: Tensor, levels: list[float], named: bool) -> list[list[str]]:
    """Rows of the CSV file, from paths (n, horizon, D)."""
    mean, shown = paths.mean(0), torch.quantile(paths, torch.tensor(levels), dim=0)  # (levels, horizon, D)
    rows = []
    for step, time in enumerate(one.later(paths.shape[1])):
        cells = [
            f"{value:.6g}"
            for column in range(paths.shape[2])
            for value in (float(mean[step, column]), *shown[:, step, column].tolist())
        ]
        rows.append([one.name] * named + [time, *cells])
    return rows
