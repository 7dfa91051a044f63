"""The base class of spaces: what every kind of data has, its shape, unit, validation and text form."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

from zoo.core import registry
from zoo.core.errors import DataError
from zoo.core.signature import within

MAX_SAMPLE_SIZE = 2**28  # numbers in one sample that a file may ask for


@dataclass(frozen=True)
class Space:
    """One kind of data.

    Raises:
        ValueError: a field of another type than its annotation, or out of its bounds.
    """

    registered_name: ClassVar[str]
    unit: ClassVar[str] = "samples"  # of throughput
    items: ClassVar[str] = "samples"  # that a data set holds
    of_data: ClassVar[bool] = True  # whether data sets have it; otherwise only a first stage makes it

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            if get_origin(hint) is not ClassVar:
                _check(f"{type(self).__name__}.{name}", getattr(self, name), hint)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample as a tensor, without the batch."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Number of scalar values in one sample."""
        return math.prod(self.shape)

    def units(self, x: Any) -> int:
        """Number of units in a batch (B, *shape)."""
        return len(x)

    def validate(self, x: Any) -> None:
        """Check a batch of samples, a tensor (B, *shape).

        Raises:
            DataError: another shape, type or range than the space has.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise DataError(f"x={tuple(x.shape)}: not a batch of {self}. Give a tensor (B, {times(self.shape, ', ')}).")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, so that a checkpoint that holds them loads with `weights_only=True`."""
        return {"space": self.registered_name} | {f.name: _to_plain(getattr(self, f.name)) for f in fields(self)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Space":
        """Inverse of `to_dict`; keys of a newer version are ignored.

        Raises:
            ValueError: unknown space, or values that describe none.
        """
        try:
            kind: Any = registry.get("space", str(values["space"]))
        except KeyError as error:
            raise ValueError(str(error.args[0])) from None
        known = {f.name: values[f.name] for f in fields(kind) if f.name in values}
        try:
            space: Space = kind(**{name: _from_plain(value) for name, value in known.items()})
        except TypeError as error:  # a field is missing
            raise ValueError(str(error)) from None
        if space.size > MAX_SAMPLE_SIZE:
            raise ValueError(f"{space}: one sample has more than {MAX_SAMPLE_SIZE:,} numbers.")
        return space

    def __str__(self) -> str:
        return f"{self.registered_name} {times(self.shape)}"


class PixelSpace(Space):
    """Data whose values are brightnesses: float in [0, 1], on the grid k / (levels - 1).

    Attributes:
        levels: number of brightnesses; 0 for continuous values, about in [0, 1], such as latents.
    """

    levels: int

    @property
    def n_levels(self) -> int:
        """Number of levels, at least 1.

        Raises:
            DataError: the values are continuous.
        """
        if not self.levels:
            raise DataError(f"data={self}: continuous, without levels. Choose a model of densities: flow or diffusion.")
        return self.levels

    def validate(self, x: Any) -> None:
        """Check shape, type and range."""
        super().validate(x)
        if not self.levels:
            if not x.is_floating_point() or not bool(x.isfinite().all()):
                raise DataError(f"x={x.dtype}: not float and finite. Convert it, and remove NaN and infinity.")
            return
        if not x.is_floating_point() or (x.numel() and not 0 <= float(x.min()) <= float(x.max()) <= 1):
            have = f"{x.dtype} from {float(x.min()):g} to {float(x.max()):g}"
            raise DataError(f"x={have}: images are float in [0, 1]. Divide bytes by 255, or undo a normalisation.")


def times(shape: tuple[int, ...], by: str = "x") -> str:
    """A shape as text, such as 3x32x32."""
    return by.join(map(str, shape))


def _check(where: str, value: Any, hint: Any) -> None:
    """Check a value against its annotation."""
    bounds: list[Any] = []
    if get_origin(hint) is Annotated:
        hint, *bounds = get_args(hint)
    if get_origin(hint) is tuple:
        element = get_args(hint)[0]
        good = isinstance(value, tuple) and all(type(v) is element for v in value)
        good = good and (element is not int or all(v > 0 for v in value))
    else:
        good = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if not good or not within(value, bounds):
        raise ValueError(f"{where}={value!r}: not valid.")


def _to_plain(value: Any) -> Any:
    if isinstance(value, Space):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _from_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Space.from_dict(value)
    return tuple(value) if isinstance(value, list) else value
