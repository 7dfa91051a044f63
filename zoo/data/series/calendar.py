"""Steps of time: texts to numbers, gaps, and the steps after the end."""

import math
from calendar import monthrange
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from zoo.core.errors import DataError
from zoo.data.table.infer import EPOCH, date_cell, date_format, decimals_of, to_number

MAX_GAP = 10  # missing steps for each step that is there
Step = tuple[str, float]  # "months", "month ends" or "units", and how many


class Calendar:
    """Times of one file: numbers, or dates of one format.

    Args:
        texts: times of all rows.
        where: setting and file, for messages.

    Raises:
        DataError: neither numbers nor dates of one known format.
    """

    def __init__(self, texts: Sequence[str], where: str) -> None:
        self.where = where
        self.format = "" if all(math.isfinite(to_number(text)) for text in texts) else date_format(texts)
        self.decimals = 0 if self.format else max(map(decimals_of, texts))
        if not self.format and not all(math.isfinite(to_number(text)) for text in texts):
            bad = next(text for text in texts if not math.isfinite(to_number(text)) and not date_format([text]))
            raise DataError(f"{where}: {bad!r} is not a time. Write numbers, or dates such as 2026-12-31.")

    def number(self, text: str) -> float:
        """Time as a number: days or seconds for dates."""
        return date_cell(text, self.format) if self.format else float(text)

    def text(self, number: float) -> str:
        """Inverse of `number`."""
        if not self.format:
            return f"{number:.{self.decimals}f}"
        unit = 1 if "%S" in self.format else 86_400
        return (EPOCH + timedelta(seconds=round(number * unit))).strftime(self.format)

    def step(self, numbers: Sequence[float]) -> Step:
        """The step of increasing times: months where all are on one day of the month or at its end, else the least one.

        Raises:
            DataError: a time occurs twice, or times without a common step.
        """
        differences = [b - a for a, b in pairwise(numbers)]
        if not differences:
            return "units", 1.0
        if min(differences) <= 0:
            twice = self.text(next(b for a, b in pairwise(numbers) if a == b))
            raise DataError(f"{self.where}: time {twice} occurs twice in one series. Set data.id=COLUMN, or remove it.")
        dates = [self.date(number) for number in numbers] if self.format else []
        ends = bool(dates) and all(date.day == last_day(date) for date in dates)
        if ends or len({date.day for date in dates}) == 1:
            months = [month_of(date) for date in dates]
            apart = [b - a for a, b in pairwise(months)]
            if min(apart) > 0 and all(a % min(apart) == 0 for a in apart):
                return "month ends" if ends else "months", min(apart)
        step = min(differences)
        if any(abs(d / step - round(d / step)) > 0.01 for d in differences):
            raise DataError(
                f"{self.where}: times are not on a regular grid of {step:g}. Resample them, or leave out data.time."
            )
        return "units", step

    def date(self, number: float) -> datetime:
        """Time as a date."""
        return datetime.strptime(self.text(number), self.format)

    def moved(self, number: float, step: Step, count: int) -> float:
        """Time some steps later."""
        kind, size = step
        if kind == "units":
            return number + size * count
        start = self.date(number)
        month = month_of(start) + round(size) * count
        there = start.replace(year=month // 12, month=month % 12 + 1, day=1)
        there = there.replace(day=last_day(there) if kind == "month ends" else min(start.day, last_day(there)))
        return self.number(there.strftime(self.format))

    def places(self, numbers: Sequence[float], step: Step) -> list[int]:
        """Place of each time on the grid, from 0.

        Raises:
            DataError: many more gaps than times.
        """
        kind, size = step
        if kind != "units":
            months = [month_of(self.date(number)) for number in numbers]
            places = [round((month - months[0]) / size) for month in months]
        else:
            places = [round((number - numbers[0]) / size) for number in numbers]
        if places and places[-1] > MAX_GAP * len(places):
            raise DataError(
                f"{self.where}: {places[-1] + 1:,} steps of {size:g} between the first and the last time, and only "
                f"{len(places):,} are there. Correct the times, or leave out data.time."
            )
        return places


def month_of(date: datetime) -> int:
    """Months since the year 0."""
    return 12 * date.year + date.month - 1


def last_day(date: datetime) -> int:
    """Last day of the month of a date."""
    return monthrange(date.year, date.month)[1]
