"""Real time series that come with the package statsmodels."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Literal

import torch
from annotated_types import MinLen

from zoo.core.errors import ConfigError, DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.series.calendar import Calendar
from zoo.data.series.windows import Missing, OneSeries, SeriesData

Table = tuple[list[str], dict[str, list[float]]]  # times, and the columns


@dataclass(frozen=True)
class Source:
    """One series of statsmodels.

    Args:
        read: converts the data frame of the package.
        length: default steps of a window.
        horizon: default steps of a forecast, one season.
    """

    read: Callable[[Any], Table]
    length: int
    horizon: int


def yearly_sunspots(frame: Any) -> Table:
    """Sunspot numbers of the years 1700 to 2008."""
    return [f"{year:.0f}" for year in frame["YEAR"]], {"sunspots": frame["SUNACTIVITY"].tolist()}


def monthly_co2(frame: Any) -> Table:
    """Means of the weeks of each month, in parts per million; NaN for a month without a week."""
    months = frame["co2"].resample("MS").mean()
    return [date.strftime("%Y-%m-%d") for date in months.index], {"co2": months.tolist()}


def monthly_temperature(frame: Any) -> Table:
    """Temperatures in degrees Celsius: the months of a year, then those of the next."""
    names = [name for name in frame.columns if name != "YEAR"]
    times = [f"{year:.0f}-{month:02}-01" for year in frame["YEAR"] for month in range(1, len(names) + 1)]
    return times, {"temperature": frame[names].to_numpy().flatten().tolist()}


def quarterly_rates(frame: Any) -> Table:
    """Inflation, unemployment and the rate of treasury bills, in per cent."""
    quarters = zip(frame["year"], frame["quarter"], strict=True)
    times = [f"{year:.0f}-{3 * quarter - 2:02.0f}-01" for year, quarter in quarters]
    columns = {"inflation": "infl", "unemployment": "unemp", "treasury_bills": "tbilrate"}
    return times, {name: frame[column].tolist() for name, column in columns.items()}


SOURCES: dict[str, Source] = {
    "sunspots": Source(yearly_sunspots, length=44, horizon=11),
    "co2": Source(monthly_co2, length=48, horizon=12),
    "elnino": Source(monthly_temperature, length=48, horizon=12),
    "macrodata": Source(quarterly_rates, length=24, horizon=4),
}


@register("data", "real_series")
class RealSeries(SeriesData):
    """Real time series from the package statsmodels: sunspots, carbon dioxide, El Nino, or macroeconomics.

    The extra `series` installs the package.

    - sunspots: yearly numbers from 1700 to 2008, with a cycle of about 11 years.
    - co2: monthly means of the carbon dioxide at Mauna Loa, 1958 to 2001, with a trend, seasons and missing months.
    - elnino: monthly temperature of the sea surface off Peru, 1950 to 2010.
    - macrodata: inflation, unemployment and interest in the United States, by quarters from 1959 to 2009.

    See `zoo.data.series.windows.SeriesData` for the split.

    Args:
        series: which one.
        columns: columns of the series; null is every one.
        length: steps of a window; null is four seasons, and for macrodata six.
        horizon: last steps of a window, which forecasts predict from the others; null is one season.
        stride: steps between the beginnings of two windows.
        missing: "keep" leaves missing values to the model; "forward" repeats the last value before.
        batch_size: windows per batch.
        seed: seed of the training order.

    Raises:
        ConfigError: statsmodels is not installed.
        DataError: windows that are too long for the series.
    """

    licence = "public domain"
    time_name = "time"

    def __init__(
        self,
        *,
        series: Literal["sunspots", "co2", "elnino", "macrodata"] = "sunspots",
        columns: Annotated[list[str], MinLen(1)] | None = None,
        length: PositiveInt | None = None,
        horizon: PositiveInt | None = None,
        stride: PositiveInt = 1,
        missing: Missing = "keep",
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        source = SOURCES[series]
        sizes = {"length": length or source.length, "horizon": horizon or source.horizon, "stride": stride}
        super().__init__(**sizes, missing=missing, batch_size=batch_size, seed=seed)
        self.series, self.variant, self.columns = series, series, columns
        self.where = f"data.series={series}"

    def read(self) -> tuple[list[OneSeries], tuple[str, ...], tuple[str, ...]]:
        """Read the series; it does not have covariates.

        Raises:
            DataError: no such column.
        """
        times, every = SOURCES[self.series].read(statsmodels_frame(self.series))
        for name in self.columns or ():
            if name not in every:
                raise DataError(f"data.columns={name}: no such column. There are {', '.join(every)}.")
        columns = {name: every[name] for name in self.columns or every}
        calendar = Calendar(times, self.where)
        numbers = [calendar.number(text) for text in times]
        step = calendar.step(numbers)
        x = torch.tensor(list(columns.values())).T  # (L, D)

        def later(count: int) -> list[str]:
            return [calendar.text(calendar.moved(numbers[0], step, len(times) + i)) for i in range(count)]

        return [OneSeries(self.series, times, x, torch.zeros(len(x), 0), later)], tuple(columns), ()


def statsmodels_frame(series: str) -> Any:
    """Data frame of one of statsmodels' data sets.

    Raises:
        ConfigError: statsmodels is not installed.
    """
    try:
        found = import_module(f"statsmodels.datasets.{series}")
    except ImportError:
        raise ConfigError(
            f"data.series={series}: needs statsmodels, which is not installed. pip install 'generative-zoo[series]'."
        ) from None
    return found.load_pandas().data
