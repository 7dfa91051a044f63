"""Your own time series: CSV and Parquet."""

import math
from typing import Annotated

import torch
from annotated_types import MinLen
from torch import Tensor

from zoo.core.cache import user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.series.calendar import Calendar
from zoo.data.series.windows import Missing, OneSeries, SeriesData
from zoo.data.table.infer import check_size, is_missing, to_number
from zoo.data.table.mixed import read_columns


@register("data", "series")
class SeriesFile(SeriesData):
    """Your own time series: data=series data.path=FILE.csv data.time=COLUMN, one row for each step.

    CSV needs a first line with the names of the columns; .parquet needs the extra `parquet`. Rows are sorted by time,
    and steps that are not there are missing values. Rows at the end with covariates and without values are the known
    future. See `zoo.data.series.windows.SeriesData` for the split.

    Args:
        path: file of values that are separated by commas, semicolons, tabs or vertical bars, or a Parquet file.
        time: column of the time, numbers or dates; null takes the rows as they are.
        id: column with the name of the series of each row; null is one series.
        columns: columns of the series; null is every other column of numbers.
        covariates: columns of numbers whose future is known, such as a holiday.
        length: steps of a window.
        horizon: last steps of a window, which forecasts predict from the others.
        stride: steps between the beginnings of two windows.
        missing: "keep" leaves missing values to the model; "forward" repeats the last value before.
        batch_size: windows per batch.
        seed: seed of the training order.

    Raises:
        DataError: no such file or column, values that are not numbers, irregular times, or series that are too short.
    """

    def __init__(
        self,
        *,
        path: str,
        time: str | None = None,
        id: str | None = None,
        columns: Annotated[list[str], MinLen(1)] | None = None,
        covariates: Annotated[list[str], MinLen(1)] | None = None,
        length: PositiveInt = 48,
        horizon: PositiveInt = 12,
        stride: PositiveInt = 1,
        missing: Missing = "keep",
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(
            length=length, horizon=horizon, stride=stride, missing=missing, batch_size=batch_size, seed=seed
        )
        self.path, self.time, self.id = user_path(path), time, id
        self.columns, self.covariates = columns, covariates or []
        self.where = f"data.path={self.path}"
        self.time_name, self.id_name = time or "step", id or ""

    def read(self) -> tuple[list[OneSeries], tuple[str, ...], tuple[str, ...]]:
        """Read the file, and put each series on its grid."""
        fields = read_columns(self.path)
        given = [("time", self.time), ("id", self.id), *(("columns", name) for name in self.columns or ())]
        for setting, name in [*given, *(("covariates", name) for name in self.covariates)]:
            if name is not None and name not in fields:
                raise DataError(f"data.{setting}={name}: no such column. There are {', '.join(fields)}.")
        others = [name for name in fields if name not in (self.time, self.id, *self.covariates)]
        columns = self.columns or [name for name in others if is_numeric(fields[name])]
        if not columns:
            raise DataError(f"{self.where}: no column of numbers. Set data.columns=[NAME,...].")
        if twice := sorted(set(columns) & {self.time, self.id, *self.covariates}):
            raise DataError(f"data.columns={twice[0]}: has another use too. Name it once.")
        if texts := [name for name in others if not is_numeric(fields[name])]:
            hint = "; data.time and data.id name the columns of the time and of the series"
            self.details["left out"] = f"{', '.join(texts)}: not numbers" + (
                hint if None in (self.time, self.id) else ""
            )
        size = len(fields[columns[0]])
        x = torch.stack([self.numbers(name, fields[name]) for name in columns], 1)
        known = [self.numbers(name, fields[name]) for name in self.covariates]
        c = torch.stack(known, 1) if known else torch.zeros(size, 0)
        if bool(c.isnan().any()):
            raise DataError(f"data.covariates: a value is missing in {self.path}. Fill it in, or leave the column out.")
        names = fields[self.id] if self.id else [""] * size
        times = fields[self.time] if self.time else [str(i) for i in range(size)]
        calendar = Calendar(times, self.where if self.time is None else f"data.time={self.time}")
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            rows.setdefault(name, []).append(row)
        found = [self.one(name, chosen, times, calendar, x, c) for name, chosen in rows.items()]
        return found, tuple(columns), tuple(self.covariates)

    def numbers(self, name: str, texts: list[str]) -> Tensor:
        """A column as numbers, NaN where missing, (N,) in single precision.

        Raises:
            DataError: a text that is not a number.
        """
        for row, text in enumerate(texts, 1):
            if not is_missing(text) and not math.isfinite(to_number(text)):
                raise DataError(
                    f"{self.where}: {text!r} in column {name}, row {row}, is not a finite number. Repair it, or set "
                    f"data.columns=[NAME,...] without it."
                )
        found = [math.nan if is_missing(text) else float(text) for text in texts]
        check_size([value for value in found if value == value], name, self.where)
        return torch.tensor(found)

    def one(
        self, name: str, rows: list[int], times: list[str], calendar: Calendar, x: Tensor, covariates: Tensor
    ) -> OneSeries:
        """One series on its grid: sorted, with missing values for steps that are not there."""
        rows = sorted(rows, key=lambda row: calendar.number(times[row])) if self.time else rows
        numbers = [calendar.number(times[row]) for row in rows] if self.time else [float(i) for i in range(len(rows))]
        step = calendar.step(numbers)
        places = calendar.places(numbers, step)
        size = places[-1] + 1
        if covariates.shape[1] and size > len(rows):
            raise DataError(
                f"data.covariates: {size - len(rows)} steps of series {name} are not there. Add their rows."
            )
        values = torch.full((size, x.shape[1]), math.nan)
        values[places] = x[rows]
        there = (~values.isnan()).any(1).nonzero()
        last = int(there[-1]) + 1 if len(there) else 0

        def texts(first: int, count: int) -> list[str]:
            return [calendar.text(calendar.moved(numbers[0], step, first + i)) for i in range(count)]

        return OneSeries(name, texts(0, last), values[:last], covariates[rows], lambda count: texts(last, count))


def is_numeric(texts: list[str]) -> bool:
    """Whether all fields are numbers or missing, and one is a number."""
    given = [text for text in texts if not is_missing(text)]
    return bool(given) and all(math.isfinite(to_number(text)) for text in given)
