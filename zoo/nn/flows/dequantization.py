"""Dequantisation: noise between the levels of an image, so that a density bounds the probability of its levels.

With noise u ~ q(u | x) in units of a level, E log p(x + u) - log q(u | x) is a lower bound on the log-probability of
the levels x (Ho et al. 2019, arXiv:1902.00275, equation 8).
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.signature import Component, Depth, PositiveInt
from zoo.nn.distributions.likelihoods import at_least_float32
from zoo.nn.flows.base import Chain, Reverse, Transform
from zoo.nn.flows.coupling import Conditioner, Coupling, Squeeze
from zoo.nn.flows.univariate import Affine

# Noise for images. It is registered as `f(shape, *, settings)` and returns a `Dequantizer`.
Dequantization = Annotated[str | dict[str, Any], Component("dequantization")]

BELOW_ONE = 1 - 1e-6  # the largest noise


@register("dequantization", "uniform")
class Dequantizer(nn.Module):
    """Uniform noise (Theis et al. 2015, arXiv:1511.01844, section 3.1).

    Args:
        shape: of an image.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [0, 1] -> noise in [0, 1), in units of a level, and its log-density in nats (B,)."""
        return torch.rand_like(x), x.new_zeros(len(x))


class GivenImage(nn.Module):
    """Kept values (B, n_in, H, W), beside the image of the same size -> parameters (B, n_out, H, W)."""

    def __init__(self, n_in: int, n_image: int, n_out: int, width: int, depth: int) -> None:
        super().__init__()
        self.network = Conditioner(n_in + n_image, n_out, True, 0, width, depth, 0.0)

    def forward(self, kept: Tensor, image: Tensor) -> Tensor:
        """See the class."""
        return self.network(torch.cat([kept, image], 1), None)


class GivenAffine(Transform):
    """z = (x - m) exp(s) for every value, where m and s depend on the image alone.

    Args:
        channels: size of dimension 1.
        width: feature maps.
        depth: residual blocks.
    """

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.function, self.network = Affine(), Conditioner(channels, 2 * channels, True, 0, width, depth, 0.0)

    def params(self, image: Tensor | None) -> Tensor:
        """Parameters (B, C, H, W, 2)."""
        return self.network(image, None).unflatten(1, (-1, 2)).movedim(2, -1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`; y is the image."""
        z, log_slope = self.function.forward(x, self.params(y))
        return z, log_slope.flatten(1).sum(1)

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.inverse`; y is the image."""
        return self.function.inverse(z, self.params(y))


@register("dequantization", "variational")
class VariationalDequantizer(Dequantizer):
    """Learned noise, by a flow given the image (Flow++, Ho et al. 2019, arXiv:1902.00275, section 3.1).

    Coupling layers map normal noise e to v, given the image, and u = Phi(v) with the normal distribution function. At
    first v = e, so that u is uniform, and the bound begins with that of uniform noise.

    Args:
        shape: of an image.
        n_couplings: coupling layers; none where an image has no two halves.
        width: feature maps of each network.
        depth: its residual blocks.
    """

    def __init__(
        self, shape: Sequence[int], *, n_couplings: PositiveInt = 4, width: PositiveInt = 32, depth: Depth = 1
    ) -> None:
        super().__init__(shape)
        channels = shape[0]
        self.squeeze: Squeeze | None = None if any(side % 2 for side in shape[1:]) else Squeeze()
        if self.squeeze is not None:
            channels *= 4
        parts: list[Transform] = [GivenAffine(channels, width, depth)]
        kept = channels // 2
        for _ in range(n_couplings if kept else 0):
            network = GivenImage(kept, channels, 2 * (channels - kept), width, depth)
            parts += [Reverse(), Coupling(channels, Affine(), network)]
        self.chain = Chain(parts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Dequantizer.forward`."""
        return self.from_noise(torch.randn_like(at_least_float32(x)), x)

    def from_noise(self, e: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normal noise and images, both (B, C, H, W) -> `forward`."""
        image, start = 2 * x - 1, e
        if self.squeeze is not None:
            image, start = self.squeeze(image)[0], self.squeeze(e)[0]
        v, log_det = self.chain(start, image)
        log_q = 0.5 * (v.square() - start.square()).flatten(1).sum(1) - log_det  # log N(e) - log |dv/de| - log N(v)
        u = 0.5 * torch.erfc(-v / math.sqrt(2))
        u = u if self.squeeze is None else self.squeeze.inverse(u)
        return u.clamp(max=BELOW_ONE), log_q
