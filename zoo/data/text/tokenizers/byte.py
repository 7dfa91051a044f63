"""Byte tokenizer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.data.text.tokenizers.base import BYTES, Tokenizer


@register("tokenizer", "byte")
class Byte(Tokenizer):
    """The 256 bytes of UTF-8: nothing to learn, nothing unknown."""

    def __init__(self) -> None:
        self.pieces = [*BYTES, b""]

    def fit(self, texts: Sequence[str]) -> "Byte":
        """Nothing to learn."""
        return self

    def encode(self, text: str) -> list[int]:
        """One identifier per byte."""
        return list(text.encode("utf-8", errors="replace"))

    def encode_all(self, texts: Sequence[str]) -> list[Tensor]:
        """Many texts at once, each int32 (T,)."""
        return [
            torch.frombuffer(bytearray(t.encode() or b"\0"), dtype=torch.uint8).int()[: len(t.encode())] for t in texts
        ]

    def state(self) -> None:
        """Nothing."""

    @classmethod
    def load(cls, state: None) -> "Byte":
        """Nothing to restore."""
        return cls()
