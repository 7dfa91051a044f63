"""The part of a text model that has a tokenizer: bytes of tokens, and scores that compare between tokenizers."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.core.spec import DataSpec
from zoo.data.text.tokenizers.base import loads


class TokenizerMixin:
    """Tokenizer of a `Model` of text; its `token_nll` gives nats (B, T) of the targets (B, T)."""

    tokenizer: Any
    piece_bytes: Tensor  # (V,)
    register_buffer: Callable[..., None]
    log_epoch_mean: Callable[..., None]

    def load_tokenizer(self, spec: DataSpec) -> None:
        """Set `tokenizer` to that of the data; None without one."""
        text = spec.tokens
        self.tokenizer = loads(text.tokenizer, text.vocab_size) if text.tokenizer else None
        if self.tokenizer is not None:
            sizes = torch.tensor([len(piece) * self.tokenizer.prose for piece in self.tokenizer.pieces])
            self.register_buffer("piece_bytes", sizes, persistent=False)

    def sizes(self, target: Tensor) -> Tensor:
        """Bytes of text in each target token (B, T); 0 for padding, unknown tokens and a notation."""
        known = (target >= 0) & (target != self.tokenizer.unknown)
        return self.piece_bytes[target.clamp(min=0)] * known

    def log_token_means(self, nats: Tensor, target: Tensor) -> None:
        """Log means over all tokens and all bytes of the split, independent of the batch size."""
        self._log_mean("val/loss", nats.sum(), (target >= 0).sum())
        if self.tokenizer is not None:
            sizes = self.sizes(target)
            self._log_mean("val/bits_per_byte", (nats * (sizes > 0)).sum() / math.log(2), sizes.sum())

    def _log_mean(self, name: str, total: Tensor, number: Tensor) -> None:
        weight = int(number)  # waits for the device; only in validation
        if weight:
            self.log_epoch_mean({name: total / weight}, weight)
