"""Invertible transforms, and how they are composed."""

from collections.abc import Iterable
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from zoo.core.signature import Component

# A flow from data to noise. It is registered as `f(shape, n_classes, *, settings)` and returns a `Transform`.
FlowTransform = Annotated[str | dict[str, Any], Component("transform")]


class Transform(nn.Module):
    """An invertible map from data x to noise z of the same size, given labels y (B,) or None.

    Attributes:
        exportable: whether `inverse` takes few passes; each one is a part of an exported graph.
        exact: False if the log-determinant is an unbiased estimate, with other noise at each call.
        likelihood_suffix: of the names of likelihoods that a solver approximates.
    """

    exportable = True
    exact = True
    likelihood_suffix = ""

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data (B, *shape) -> noise (B, *shape), and log |det dz/dx|, (B,)."""
        raise NotImplementedError

    def latents(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data (B, *shape) -> noise (B, *shape), without randomness."""
        return self(x, y)[0]

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Noise (B, *shape) -> data (B, *shape)."""
        raise NotImplementedError


class Chain(Transform):
    """Transforms one after another; the log-determinants add up."""

    def __init__(self, parts: Iterable[Transform]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`."""
        total = x.new_zeros(x.shape[0])
        for part in self.parts:
            x, log_det = part(x, y)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.inverse`."""
        for part in reversed(self.parts):
            z = part.inverse(z, y)  # type: ignore[operator]
        return z


class Inverted(Transform):
    """The inverse of a transform as a transform: the fast direction becomes that of sampling."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`."""
        z = self.transform.inverse(x, y)
        return z, -self.transform(z, y)[1]

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.inverse`."""
        return self.transform(z, y)[0]


class Reverse(Transform):
    """The order of dimension 1 reversed."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`."""
        return x.flip(1), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.inverse`."""
        return z.flip(1)


class Flatten(Transform):
    """A transform of vectors (B, D), applied to data of any shape."""

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`."""
        z, log_det = self.transform(x.flatten(1), y)
        return z.view(x.shape), log_det

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.inverse`."""
        return self.transform.inverse(z.flatten(1), y).view(z.shape)


class ActNorm(Transform):
    """z = (x + shift) exp(log_scale), per channel (Kingma & Dhariwal 2018, arXiv:1807.03039, section 3.1).

    While `fitting`, the first batch sets both, so that its channels have mean 0 and variance 1.

    Args:
        channels: size of dimension 1.
    """

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift, self.log_scale = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialized", torch.tensor(False))
        self.fitting = False

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Normalise the channels of a batch (B, C, ...), once."""
        if not self.initialized:
            values = x.transpose(0, 1).flatten(1)  # (C, N)
            self.shift.copy_(-values.mean(1))
            self.log_scale.copy_(-values.std(1, correction=0).clamp(min=1e-3).log())
            self.initialized.fill_(True)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`."""
        if self.fitting:
            self.fit(x)
        shift, log_scale = _like(self.shift, x), _like(self.log_scale, x)
        return (x + shift) * log_scale.exp(), (self.log_scale.sum() * x[0, 0].numel()).expand(x.shape[0])

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.inverse`."""
        return z * _like(-self.log_scale, z).exp() - _like(self.shift, z)


class InvertibleLinear(Transform):
    """z = W x per position, an invertible 1x1 convolution (arXiv:1807.03039, section 3.2), also for vectors.

    W = P L (U + diag(s)) with a fixed permutation P, unit triangular L, strictly triangular U and fixed signs of s. It
    starts as a random rotation, and log |det W| is the sum of log |s|.

    Args:
        channels: size of dimension 1.
    """

    order: Tensor
    negative: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        p, lower, upper = torch.linalg.lu(torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))[0])
        self.register_buffer("order", p.argmax(1))  # row i of P picks this one
        self.register_buffer("negative", upper.diag() < 0)
        self.lower = nn.Parameter(lower.tril(-1).float())
        self.upper = nn.Parameter(upper.triu(1).float())
        self.log_scale = nn.Parameter(upper.diag().abs().log().float())

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U + diag(s), each (C, C)."""
        scale = torch.where(self.negative, -1.0, 1.0).to(self.log_scale) * self.log_scale.exp()
        return self.lower.tril(-1) + torch.eye(len(scale)).to(scale), self.upper.triu(1) + scale.diag()

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`."""
        with torch.autocast(x.device.type, enabled=False):  # the inverse is as exact as this
            lower, upper = self.factors()
            weight = (lower @ upper)[self.order]
            z = (weight @ x.flatten(2)).view(x.shape) if x.ndim > 2 else x @ weight.mT
        return z, (self.log_scale.sum() * x[0, 0].numel()).expand(x.shape[0])

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.inverse`."""
        with torch.autocast(z.device.type, enabled=False):
            lower, upper = self.factors()
            x = z.flatten(2) if z.ndim > 2 else z[..., None]  # (B, C, N)
            x = torch.linalg.solve_triangular(lower, x[:, self.order.argsort()], upper=False, unitriangular=True)
            x = torch.linalg.solve_triangular(upper, x, upper=True)
        return x.reshape(z.shape)


def _like(values: Tensor, x: Tensor) -> Tensor:
    """Values per channel (C,), broadcastable to x (B, C, ...)."""
    return values.view(-1, *[1] * (x.ndim - 2))
