"""Key-value cache of the tokens so far."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
        self.tokens: Tensor | None = None  # (B, used), of networks that may have to read them again
        self.long: Tensor | None = None  # (B,) rows that were read as long texts

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

    def to_read(self, tokens: Tensor, short: int) -> Tensor:
        """Tokens to read next (B, T): more of them than the new ones if a text becomes long, or short again.

        The angles of rotary positions of such a text change, and with them its keys. The cache is empty after that.

        Args:
            tokens: the new ones.
            short: tokens of the longest short text.
        """
        whole = tokens if self.tokens is None else torch.cat([self.tokens[:, : self.used], tokens], 1)
        long = whole.new_full((len(whole),), whole.shape[1])
        long = (long if self.first is None else long - self.first) > short
        if self.used and self.long is not None and bool((long != self.long).any()):
            self.used, tokens = 0, whole
        self.tokens, self.long = whole, long
        return tokens

    def segment_starts(self, tokens: Tensor) -> Tensor | None:
        """Column at which the text of each token (B, T) starts; None if all start at column 0."""
        return None if self.first is None else self.first[:, None].expand_as(tokens)

    def reorder(self, rows: Tensor) -> None:
        """Replace row b by row `rows[b]`; the number of rows may change, as in beam search."""
        self._allocate(self.store[..., : self.used, :].index_select(2, rows), self.store.shape[4])
        if self.first is not None:
            self.first = self.first.index_select(0, rows)
        if self.tokens is not None and self.long is not None:
            self.tokens, self.long = self.tokens.index_select(0, rows), self.long.index_select(0, rows)

    def trim(self) -> None:
        """Remove the first columns, as far as no row has text in them."""
        if self.first is None:
            return
        spare, last = (int(n) for n in torch.aminmax(self.first))
        self.store, self.used = self.store[..., spare:, :], self.used - spare
        self.first = None if spare == last else self.first - spare
        if self.tokens is not None:
            self.tokens = self.tokens[:, spare:]

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
        if self.tokens is not None and other.tokens is not None and self.long is not None and other.long is not None:
            both = (self.tokens[:, : self.used], other.tokens[:, : other.used])
            self.tokens = torch.cat([F.pad(tokens, (used - tokens.shape[1], 0)) for tokens in both])
            self.long = torch.cat([self.long, other.long])
        self.store, self.used, self.first = store, used, torch.cat(starts)
        self.trim()
        return self


class KVCacheDecoder(nn.Module):
    """Incremental decoder: the methods that need the cache alone. A network adds `forward`, `prefill` and `step`."""

    def extend(self, tokens: Tensor, state: KVCache) -> Tensor:
        """Read more tokens per row (B, T): logits after each (B, T, n_out)."""
        return self(tokens, state)

    def rewind(self, state: KVCache, n: int) -> None:
        """Remove the last n tokens of every row; not with masked documents."""
        state.used -= n

    def reorder(self, state: KVCache, rows: Tensor) -> None:
        """Row b of the state becomes what row `rows[b]` was."""
        state.reorder(rows)

    def merge(self, state: KVCache, other: KVCache) -> KVCache:
        """State of the rows of both."""
        return state.merge(other)

    def trim(self, state: KVCache) -> None:
        """Remove columns without text."""
        state.trim()
