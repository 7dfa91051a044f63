"""Fully connected networks for flattened data."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.signature import Depth, PositiveInt
from zoo.nn.blocks.layers import ACTIVATIONS, Activation, Norm, maybe_spectral_norm, norm1d


def mlp(sizes: Sequence[int], activation: Activation, norm: Norm, spectral_norm: bool) -> nn.Sequential:
    """Linear layers of the given sizes, with norm and activation in between."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes[:-1]):
        layers += [
            maybe_spectral_norm(nn.Linear(n_in, n_out), spectral_norm),
            norm1d(norm, n_out),
            ACTIVATIONS[activation](),
        ]
    return nn.Sequential(*layers, maybe_spectral_norm(nn.Linear(sizes[-2], sizes[-1]), spectral_norm))


@register("encoder", "mlp")
class MLPEncoder(nn.Module):
    """Data (B, *shape) -> features (B, out_dim).

    Args:
        shape: shape of one sample.
        out_dim: number of features.
        width: units per hidden layer.
        depth: number of hidden layers.
        activation: activation function.
        norm: normalisation of hidden layers.
        spectral_norm: apply spectral normalisation to all weights (1802.05957).
    """

    def __init__(
        self,
        shape: Sequence[int],
        out_dim: int,
        *,
        width: PositiveInt = 256,
        depth: Depth = 2,
        activation: Activation = "leaky_relu",
        norm: Norm = "none",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.layers = mlp([math.prod(shape), *[width] * depth, out_dim], activation, norm, spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, out_dim)."""
        return self.layers(x.flatten(1))


@register("decoder", "mlp")
class MLPDecoder(nn.Module):
    """Vectors (B, in_dim) -> data (B, *shape).

    Args:
        in_dim: size of the input vector.
        shape: shape of one sample.
        width: units per hidden layer.
        depth: number of hidden layers.
        activation: activation function.
        norm: normalisation of hidden layers.
        spectral_norm: apply spectral normalisation to all weights (1802.05957).
    """

    def __init__(
        self,
        in_dim: int,
        shape: Sequence[int],
        *,
        width: PositiveInt = 256,
        depth: Depth = 2,
        activation: Activation = "relu",
        norm: Norm = "none",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.layers = mlp([in_dim, *[width] * depth, math.prod(shape)], activation, norm, spectral_norm)

    def forward(self, z: Tensor) -> Tensor:
        """(B, in_dim) -> (B, *shape)."""
        return self.layers(z).unflatten(1, self.shape)
