"""Keys and values of tokens that were read before."""

from torch import Tensor

from zoo.nn.blocks.transformer_config import TransformerConfig


class KVCache:
    """Keys and values of every layer, allocated once; `used` columns of them are filled.

    Args:
        n_layers: of the stack.
        batch: rows.
        shape: of its blocks.
        room: columns.
        like: a tensor with their type and device.
    """

    def __init__(self, n_layers: int, batch: int, shape: TransformerConfig, room: int, like: Tensor) -> None:
        self.store = like.new_zeros(n_layers, 2, batch, shape.kv_heads, room, shape.head)
        self.used = 0
        self.first: Tensor | None = None  # (B,) the column each row's text begins with: padding comes before; None is 0

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Enter new columns (B, H, T, D) after the `used` ones; all keys and values so far (B, H, used + T, D)."""
        end = self.used + k.shape[2]
        keys, values = self.store[layer]
        keys[:, :, self.used : end], values[:, :, self.used : end] = k, v
        return keys[:, :, :end], values[:, :, :end]

    def beginnings(self, tokens: Tensor) -> Tensor | None:
        """The column with which the text of each of the tokens (B, T) begins; None where all begin with the first."""
        return None if self.first is None else self.first[:, None].expand_as(tokens)

    def reorder(self, rows: Tensor) -> None:
        """Row b becomes what row `rows[b]` was; the number of rows may change (beam search needs both)."""
        self.store = self.store.index_select(2, rows)
        if self.first is not None:
            self.first = self.first.index_select(0, rows)
