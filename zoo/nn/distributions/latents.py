"""Statistics of latents that are fitted once: they bring latents into a space, and give samples without a prior."""

import torch
from torch import Tensor, nn

from zoo.nn.samplers.noise import normal

N_ROWS = 1000  # training samples whose codes are kept


class ChannelRange(nn.Module):
    """Affine map of latents (B, C, h, w): every channel gets mean 1/2 and the same standard deviation.

    Training latents fill [0, 1]; others may lie outside.

    Args:
        channels: C.
    """

    location: Tensor  # (C, 1, 1)
    scale: Tensor  # (C, 1, 1)
    reach: Tensor  # (), largest standardised training latent; 0 before `fit`

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("location", torch.zeros(channels, 1, 1))
        self.register_buffer("scale", torch.ones(channels, 1, 1))
        self.register_buffer("reach", torch.zeros(()))

    @property
    def fitted(self) -> bool:
        """Whether `fit` was called, here or before the checkpoint was saved."""
        return bool(self.reach > 0)

    @torch.no_grad()
    def fit(self, z: Tensor) -> None:
        """Fit to latents (N, C, h, w)."""
        z = z.double()
        location, scale = z.mean((0, 2, 3)), z.std((0, 2, 3), correction=0).clamp(min=1e-6)
        self.location.copy_(location[:, None, None])
        self.scale.copy_(scale[:, None, None])
        self.reach.copy_(((z - location[:, None, None]) / scale[:, None, None]).abs().max().clamp(min=1.0))

    def to_unit(self, z: Tensor) -> Tensor:
        """Latents -> about [0, 1], (B, C, h, w)."""
        return 0.5 + (z - self.location) / (2 * self.reach * self.scale)

    def log_abs_det(self, z: Tensor) -> Tensor:
        """log |det du/dz| of u = to_unit(z), for latents (B, C, h, w); a scalar."""
        return -(2 * self.reach * self.scale).log().sum() * z[0, 0].numel()

    def from_unit(self, unit: Tensor) -> Tensor:
        """Inverse of `to_unit`."""
        return self.location + (unit - 0.5) * (2 * self.reach * self.scale)

    def transform(self, noise: Tensor) -> Tensor:
        """Standard normal numbers (n, C, h, w) -> independent latents with the fitted means and deviations."""
        return self.location + self.scale * noise

    def draw(self, n: int, grid: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        """n latents (n, C, *grid), without dependence between places."""
        noise = normal(n, len(self.location), *grid, generator=generator)
        return self.transform(noise.to(self.location))


class IndependentCodes(nn.Module):
    """Codes at each place as frequent as in training data, and independent of those at other places.

    Args:
        size: codes T of one sample.
    """

    rows: Tensor  # codes of training samples (N, T); -1 before `fit`

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.full((N_ROWS, size), -1))

    @property
    def fitted(self) -> bool:
        """Whether `fit` was called, here or before the checkpoint was saved."""
        return bool(self.rows[0, 0] >= 0)

    def fit(self, codes: Tensor) -> None:
        """Keep evenly spaced ones of codes (N, T)."""
        self.rows.copy_(codes[torch.linspace(0, len(codes) - 1, N_ROWS).long()])

    def transform(self, uniform: Tensor) -> Tensor:
        """Uniform numbers in [0, 1), (n, T) -> codes (n, T)."""
        return self.rows.gather(0, (uniform * N_ROWS).long())

    def draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        """n rows of codes (n, T)."""
        return self.transform(torch.rand(n, self.rows.shape[1], generator=generator).to(self.rows.device))
