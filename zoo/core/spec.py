"""Specifications of data: the spaces that models are built from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.core.errors import DataError
from zoo.core.space import Space
from zoo.core.spaces import Image, Label, Tokens, tokens_of


@dataclass(frozen=True)
class DataSpec:
    """The spaces of one sample; models are built from this and never from the data.

    Args:
        x: generated data.
        condition: given with each sample, such as its class label; None for nothing (labels are then all zero).
        name: registered name of the data.
    """

    x: Space
    condition: Space | None = None
    name: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the batch."""
        return self.x.shape

    @property
    def size(self) -> int:
        """Number of scalar values in one sample."""
        return self.x.size

    @property
    def n_classes(self) -> int:
        """Number of class labels; 0 without labels."""
        return self.condition.n_classes if isinstance(self.condition, Label) else 0

    @property
    def image(self) -> Image:
        """The space of images; an error for other data."""
        if not isinstance(self.x, Image):
            raise DataError(f"{self}: not images.")
        return self.x

    @property
    def text(self) -> bool:
        """Whether samples are made of tokens."""
        return tokens_of(self.x) is not None

    @property
    def tokens(self) -> Tokens:
        """The text that samples are made of; an error for other data."""
        found = tokens_of(self.x)
        if found is None:
            raise DataError(f"{self}: not text.")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, so that a checkpoint holding them loads with `weights_only=True`."""
        condition = None if self.condition is None else self.condition.to_dict()
        return {"x": self.x.to_dict(), "condition": condition, "name": self.name}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataSpec":
        """Inverse of `to_dict`; keys of a newer version are ignored.

        Raises:
            ValueError: values that describe no data.
        """
        x, condition, name = values.get("x"), values.get("condition"), values.get("name", "")
        if not isinstance(x, Mapping) or not isinstance(condition, Mapping | None) or not isinstance(name, str):
            raise ValueError("a data spec has a space x, a condition and a name.")
        return cls(Space.from_dict(x), None if condition is None else Space.from_dict(condition), name)

    def __str__(self) -> str:
        classes = f", {self.n_classes} classes" if self.n_classes else ""
        return f"{self.name or 'data'} ({self.x}{classes})"
