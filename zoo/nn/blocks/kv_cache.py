"""Key-value cache of the tokens so far."""

from typing import Any

import torch
from torch import Tensor

from zoo.nn.blocks.transformer_config import TransformerConfig

BLOCK = 128  # columns by which a cache grows


class KVCache:
    """Keys and values of every layer; the first `used` columns are filled.

    It grows in blocks, so that memory and time depend on the tokens so far, and not on the context.

    Args:
        n_layers: layers of the stack.
        batch: rows.
        config: configuration of its blocks.
        limit: maximum number of columns.
        like: a tensor of the wanted type and device.
    """

    def __init__(self, n_layers: int, batch: int, config: TransformerConfig, limit: int, like: Tensor) -> None:
        self.store = like.new_empty(n_layers, 2, batch, config.kv_heads, 0, config.head)
        self.limit, self.used = limit, 0
        self.views: tuple[Tensor, list[tuple[Tensor, Tensor]]] | None = None  # of a store
        self.step: Any = None  # see `zoo.nn.kernels.decode_step`; False where it does not apply
        self.first: Tensor | None = None  # (B,) column where each row's text starts, after padding; None is 0

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new columns (B, H, T, D); return all keys and values so far, (B, H, used + T, D)."""
        end = self.used + k.shape[2]
        if end > self.store.shape[4]:
            self._allocate(self.store[..., : self.used, :], min(end + BLOCK, self.limit))
        keys, values = self.store[layer]
        keys[:, :, self.used : end], values[:, :, self.used : end] = k, v
        return keys[:, :, :end], values[:, :, :end]

    def room_for(self, columns: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer (B, H, columns of the store, D), with room for that many more columns."""
        if (end := self.used + columns) > self.store.shape[4]:
            self._allocate(self.store[..., : self.used, :], min(end + BLOCK, self.limit))
        if self.views is None or self.views[0] is not self.store:
            self.views = self.store, [(layer[0], layer[1]) for layer in self.store]
        return self.views[1]

    def _allocate(self, filled: Tensor, room: int) -> None:
        """Copy the filled columns to a store with `room` columns."""
        self.store = filled.new_empty(*filled.shape[:4], room, filled.shape[5])
        self.store[..., : self.used, :] = filled

    def segment_starts(self, tokens: Tensor) -> Tensor | None:
        """Column at which the text of each token (B, T) starts; None if all start at column 0."""
        return None if self.first is None else self.first[:, None].expand_as(tokens)

    def reorder(self, rows: Tensor) -> None:
        """Replace row b by row `rows[b]`; the number of rows may change, as in beam search."""
        self._allocate(self.store[..., : self.used, :].index_select(2, rows), self.store.shape[4])
        if self.first is not None:
            self.first = self.first.index_select(0, rows)

    def trim(self) -> None:
        """Remove the first columns, as far as no row has text in them."""
        if self.first is None:
            return
        spare, last = (int(n) for n in torch.aminmax(self.first))
        self.store, self.used = self.store[..., spare:, :], self.used - spare
        self.first = None if spare == last else self.first - spare

    def merge(self, other: "KVCache") -> "KVCache":
        """Cache of the rows of both, aligned at their last columns; neither may be used afterwards.

        Attention depends on the distance to earlier columns, so that a row may move.
        """
        used = max(self.used, other.used)
        batch = self.store.shape[2] + other.store.shape[2]
        store = self.store.new_empty(
            *self.store.shape[:2], batch, self.store.shape[3], min(used + BLOCK, self.limit), self.store.shape[5]
        )
        starts, begin = [], 0
        for cache in (self, other):
            end, shift = begin + cache.store.shape[2], used - cache.used
            store[:, :, begin:end, :, :shift] = 0  # masked, but not a number times 0 is not 0
            store[:, :, begin:end, :, shift:used] = cache.store[..., : cache.used, :]
            zero = torch.zeros(end - begin, dtype=torch.int64, device=store.device)
            starts.append((zero if cache.first is None else cache.first) + shift)
            begin = end
        self.store, self.used, self.first = store, used, torch.cat(starts)
        self.trim()
        return self
