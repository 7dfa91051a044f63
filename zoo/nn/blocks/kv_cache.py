"""Key-value cache of the tokens so far."""

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
        self.first: Tensor | None = None  # (B,) column where each row's text starts, after padding; None is 0

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new columns (B, H, T, D); return all keys and values so far, (B, H, used + T, D)."""
        end = self.used + k.shape[2]
        if end > self.store.shape[4]:
            self._allocate(self.store[..., : self.used, :], min(end + BLOCK, self.limit))
        keys, values = self.store[layer]
        keys[:, :, self.used : end], values[:, :, self.used : end] = k, v
        return keys[:, :, :end], values[:, :, :end]

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
