"""Fully connected network for sets of items."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Depth, DropoutRate, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Interactions
from zoo.nn.blocks.layers import Activation
from zoo.nn.networks.mlp import mlp


@register("encoder", "item_mlp")
class ItemMLP(nn.Module):
    """Interactions (B, I) -> features (B, out_dim): rows of length one, dropout of items, hidden layers.

    Liang et al. 2018 (1802.05814): without the length, users of many items would dominate.

    Args:
        shape: (I,).
        out_dim: number of features.
        width: units per hidden layer.
        depth: number of hidden layers.
        dropout: of items.
        activation: activation function.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Interactions,)

    def __init__(
        self,
        shape: Sequence[int],
        out_dim: int,
        *,
        width: PositiveInt = 256,
        depth: Depth = 0,
        dropout: DropoutRate = 0.5,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.layers = mlp([shape[0], *[width] * depth, out_dim], activation, "none", False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I) -> (B, out_dim)."""
        return self.layers(self.dropout(F.normalize(x, dim=1)))
