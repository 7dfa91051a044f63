"""What a datamodule says about its data, and the bounds that signatures put on numbers."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Kind = Literal["image", "vector", "tokens", "pair", "preferences"]
ABSENT = -100  # in place of a token: nothing to read, nothing to score (the number that `cross_entropy` leaves out)
LikelihoodKind = Literal["mass", "density", "none"]
LARGEST_SAMPLE = 2**28  # numbers in one sample that a file may ask for


@dataclass(frozen=True)
class DataSpec:
    """The shape of one sample and what its numbers mean; models are built from this and never from the data.

    | kind   | a batch is (x, y)                                  | shape     |
    |--------|----------------------------------------------------|-----------|
    | image  | x float in [0, 1] (B, C, H, W), y class int64 (B,)  | (C, H, W) |
    | vector | x float (B, D), y class int64 (B,)                  | (D,)      |
    | tokens | x int64 (B, T), y the next tokens int64 (B, T), where -100 is not scored | (T,) |
    | pair   | x source int64 (B, S), y target int64 (B, T), each with its end token, then -100 | (most of S and T,) |
    | preferences | x int64 (B, 2, T), y the next tokens (B, 2, T): a prompt with a better and a worse answer | (T,) |

    Batches of text may be shorter than the shape, which is the context. Without classes (`n_classes == 0`) the
    labels of images and vectors are all zero.
    """

    kind: Kind
    shape: tuple[int, ...]
    n_classes: int = 0  # 0: the labels mean nothing
    levels: int = 256  # images: distinct values per channel, on the grid k / (levels - 1)
    vocab_size: int = 0  # text: identifiers run from 0 to vocab_size - 1
    tokenizer: str = ""  # text: the serialised tokenizer, so that a checkpoint can read and write text
    name: str = ""  # the registered name of the data

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown kind of data {self.kind!r}; the zoo knows {', '.join(get_args(Kind))}")

    @property
    def text(self) -> bool:
        """Is a sample made of tokens?"""
        return self.kind in ("tokens", "pair", "preferences")

    @property
    def dim(self) -> int:
        """Number of scalar values in one sample."""
        return math.prod(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, so that a checkpoint holding them loads with `weights_only=True`."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataSpec":
        """Inverse of `to_dict`; keys of a newer version are ignored.

        Raises:
            ValueError: values that describe no data.
        """
        known: dict[str, Any] = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        spec = cls(**{**known, "shape": tuple(values["shape"])})
        numbers = [*spec.shape, spec.n_classes + 1, spec.levels, spec.vocab_size + 1]
        texts = spec.tokenizer, spec.name
        if not all(type(n) is int and n > 0 for n in numbers) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"no data has the shape {list(spec.shape)} or these numbers of classes, levels or tokens")
        if spec.dim > LARGEST_SAMPLE:
            raise ValueError(f"one sample of shape {list(spec.shape)} would take more than {LARGEST_SAMPLE:,} numbers")
        return spec

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape))
        extra = f", {self.vocab_size} tokens" if self.text else ""
        extra += f", {self.n_classes} classes" if self.n_classes else ""
        return f"{self.name or 'data'} ({self.kind} {size}{extra})"
