"""Key-value cache of the tokens so far."""

from torch import Tensor

from zoo.nn.blocks.transformer_config import TransformerConfig


class KVCache:
    """Keys and values of every layer, allocated once; the first `used` columns are filled.

    Args:
        n_layers: layers of the stack.
        batch: rows.
        config: configuration of its blocks.
        room: maximum number of columns.
        like: a tensor of the wanted type and device.
    """

    def __init__(self, n_layers: int, batch: int, config: TransformerConfig, room: int, like: Tensor) -> None:
        self.store = like.new_zeros(n_layers, 2, batch, config.kv_heads, room, config.head)
        self.used = 0
        self.first: Tensor | None = None  # (B,) column where each row's text starts, after padding; None is 0

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new columns (B, H, T, D); return all keys and values so far, (B, H, used + T, D)."""
        end = self.used + k.shape[2]
        keys, values = self.store[layer]
        keys[:, :, self.used : end], values[:, :, self.used : end] = k, v
        return keys[:, :, :end], values[:, :, :end]

    def segment_starts(self, tokens: Tensor) -> Tensor | None:
        """Column at which the text of each token (B, T) starts; None if all start at column 0."""
        return None if self.first is None else self.first[:, None].expand_as(tokens)

    def reorder(self, rows: Tensor) -> None:
        """Replace row b by row `rows[b]`; the number of rows may change, as in beam search."""
        self.store = self.store.index_select(2, rows)
        if self.first is not None:
            self.first = self.first.index_select(0, rows)
