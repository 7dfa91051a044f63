"""Byte tokenizer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.data.text.tokenizers.base import BYTES, Tokenizer


@register("tokenizer", "byte")
class Byte(Tokenizer):
    """The 256 bytes of UTF-8, without training and without unknown characters."""

    def __init__(self) -> None:
        self.pieces = [*BYTES, b""]

    def fit(self, texts: Sequence[str]) -> "Byte":
        """Return the tokenizer unchanged."""
        return self

    def encode(self, text: str) -> list[int]:
        """Encode as one id per byte."""
        return list(text.encode("utf-8", errors="replace"))

    def encode_all(self, texts: Sequence[str]) -> list[Tensor]:
        """Encode many texts, each int32 (T,)."""
        return [
            torch.frombuffer(bytearray(t.encode() or b"\0"), dtype=torch.uint8).int()[: len(t.encode())] for t in texts
        ]

    def state(self) -> None:
        """Return None: there is no state."""

    @classmethod
    def load(cls, state: None) -> "Byte":
        """Make a new tokenizer."""
        return cls()
