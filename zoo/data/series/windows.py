"""Datamodule of windows of time series, with a chronological split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Series
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split

PARTS = 10  # the last tenth of a series is for testing, and the one before for validation
MAX_VALUES = 2**28  # in all windows
Missing = Literal["keep", "forward"]


@dataclass(frozen=True)
class OneSeries:
    """One time series.

    Args:
        name: of the series.
        times: texts of the L steps, in order.
        x: values (L, D), NaN where missing.
        covariates: known in advance (L + F, C), for F steps after the end too.
        later: number -> texts of so many steps after the end.
    """

    name: str
    times: Sequence[str]
    x: Tensor
    covariates: Tensor
    later: Callable[[int], list[str]]


class SeriesData(DataModule):
    """Windows of series that a subclass reads, each split by time.

    The last tenth of each series, or one horizon if this is longer, is for testing, and the one before for validation.
    Training windows end before both. The horizon of a held-out window is inside its part; its history may be older, as
    in practice. So no model is fitted to a value that it forecasts.

    Args:
        length: steps of a window.
        horizon: last steps of a window, which forecasts predict from the others.
        stride: steps between the beginnings of two windows.
        missing: "keep" leaves missing values to the model; "forward" repeats the last value before.
        batch_size: windows per batch.
        seed: seed of the training order.

    Raises:
        DataError: series that are too short, or without values.
    """

    where = "data"  # a setting, for messages
    time_name = "step"  # heading of the time in forecasts,
    id_name = ""  # and of the name of the series; empty for one series

    def __init__(
        self,
        *,
        length: PositiveInt = 48,
        horizon: PositiveInt = 12,
        stride: PositiveInt = 1,
        missing: Missing = "keep",
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        if horizon >= length:
            raise DataError(f"data.horizon={horizon}: not less than data.length={length}. Set a shorter horizon.")
        self.length, self.horizon, self.stride, self.missing = length, horizon, stride, missing

    def read(self) -> tuple[list[OneSeries], tuple[str, ...], tuple[str, ...]]:
        """The series, the names of their columns, and those of the covariates."""
        raise NotImplementedError

    @cached_property
    def content(self) -> tuple[list[OneSeries], tuple[str, ...], tuple[str, ...]]:
        """Series that are long enough, and names; missing values are filled in for missing=forward."""
        found, columns, covariates = self.read()
        if self.missing == "forward":
            found = [filled_forward(one) for one in found]
        least = self.length + 2 * self.horizon
        kept = [one for one in found if training_end(len(one.x), self.horizon) >= self.length]
        if not kept:
            longest = max((len(one.x) for one in found), default=0)
            raise DataError(
                f"{self.where}: the longest series has {longest} steps, and {least} are needed for one training "
                f"window and two horizons. Set a smaller data.length or data.horizon."
            )
        steps = sum(len(one.x) for one in kept)
        gone = sum(int(one.x.isnan().sum()) for one in kept) / (steps * len(columns))
        self.details["series"] = (
            f"{len(kept)} of {steps:,} steps, {', '.join(columns)}"
            + (f"; covariates {', '.join(covariates)}" if covariates else "")
            + (f"; {gone:.1%} missing" if gone else "")
            + (f"; {len(found) - len(kept)} shorter than {least} steps left out" if len(kept) < len(found) else "")
        )
        return kept, columns, covariates

    @property
    def spec(self) -> DataSpec:
        """Windows, and covariates if there are any."""
        found, columns, covariates = self.content
        gone = any(bool(one.x.isnan().any()) for one in found)
        space = Series(self.length, columns, self.horizon, missing=gone)
        known = Series(self.length, covariates, self.horizon) if covariates else None
        return DataSpec(space, known, name=self.registered_name)

    def load(self) -> None:
        """Cut windows."""
        found, columns, covariates = self.content
        windows = sum(max(len(one.x) - self.length + 1, 0) // self.stride + 1 for one in found)
        if windows * self.length * (len(columns) + len(covariates)) > MAX_VALUES:
            raise DataError(
                f"data.stride={self.stride}: {windows:,} windows are more than {MAX_VALUES:,} values. Set a larger one."
            )
        parts: list[list[Split]] = [[], [], []]
        for one in found:
            size, held = len(one.x), held_steps(len(one.x), self.horizon)
            start = torch.arange(0, size - self.length + 1, self.stride)
            end, split = start + self.length, start + self.length - self.horizon
            inside = [
                end <= size - 2 * held,
                (split >= size - 2 * held) & (end <= size - held),
                split >= size - held,
            ]
            x = one.x.unfold(0, self.length, 1).transpose(1, 2)  # (L - T + 1, T, D), a view
            y = one.covariates[:size].unfold(0, self.length, 1).transpose(1, 2) if covariates else None
            for part, chosen in zip(parts, inside, strict=True):
                rows = start[chosen]
                part.append((x[rows], torch.zeros(len(rows), dtype=torch.int64) if y is None else y[rows]))
        splits = [(torch.cat([x for x, _ in part]), torch.cat([y for _, y in part])) for part in parts]
        for name, (x, _) in zip(("validation", "test"), splits[1:], strict=True):
            if not len(x):
                raise DataError(f"data.stride={self.stride}: no {name} window. Set a smaller stride.")
        self.train, self.val, self.test = splits

    def ends(self) -> list[OneSeries]:
        """The series, whose ends forecasts continue."""
        return self.content[0]

    def check_model(self, model: Any) -> None:
        """Refuse missing values where a model does not read them, by its attribute `reads_missing`.

        Raises:
            DataError: it does not.
        """
        if getattr(self.spec.x, "missing", False) and not getattr(model, "reads_missing", False):
            raise DataError(
                f"data.missing={self.missing}: {model.registered_name} does not read missing values. Set "
                f"data.missing=forward, or choose a model that reads them, such as deepar."
            )


def held_steps(size: int, horizon: int) -> int:
    """Steps of each held-out part of a series."""
    return max(size // PARTS, horizon)


def training_end(size: int, horizon: int) -> int:
    """Steps of a series before its held-out parts; negative for a series that is too short."""
    return size - 2 * held_steps(size, horizon)


def filled_forward(one: OneSeries) -> OneSeries:
    """Repeat the last value before each missing one; steps before the first value of each column are dropped."""
    seen = ~one.x.isnan()
    place = torch.where(seen, torch.arange(len(seen))[:, None], -1).cummax(0).values  # (L, D) of the last value
    known = (place >= 0).all(1)
    first = int(known.int().argmax()) if bool(known.any()) else len(seen)
    x = one.x.gather(0, place.clamp(min=0))[first:]
    return OneSeries(one.name, one.times[first:], x, one.covariates[first:], one.later)
