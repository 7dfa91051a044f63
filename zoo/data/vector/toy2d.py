"""Points in the plane with a known density, to check a generative model by eye and by formula.

Each coordinate has mean about 0 and standard deviation about 1. There are 50,000 training, 10,000 validation and
10,000 test points, always the same. The label y is the part of the figure that a point belongs to.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Label, Vector
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split
from zoo.data.loader import make_generator

SIZES = {"train": 50_000, "val": 10_000, "test": 10_000}


class Points(DataModule):
    """Points (B, 2) that `draw` makes with one fixed generator per split.

    Args:
        batch_size: samples per batch.
        seed: seed of the training order.

    Attributes:
        n_modes: parts of the figure, the classes.
        centers: positions of the parts (n_modes, 2) in data units if they are points, else None.
        sigma: standard deviation of the noise in data units, per coordinate.
    """

    n_modes: ClassVar[int]
    centers: Tensor | None = None
    sigma: float = 0.0

    def __init__(self, *, batch_size: PositiveInt = 256, seed: int = 0) -> None:
        super().__init__(batch_size, seed)

    @property
    def spec(self) -> DataSpec:
        """Vectors of two numbers, with the part as label."""
        return DataSpec(Vector(2), Label(self.n_modes), name=self.registered_name)

    def load(self) -> None:
        """Draw the three splits."""
        splits: list[Split] = []
        for number, size in enumerate(SIZES.values()):
            generator = make_generator(number)
            y = torch.randint(self.n_modes, (size,), generator=generator)
            splits.append((self.draw(y, generator), y))
        self.train, self.val, self.test = splits

    def draw(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Draw points (B, 2) of the parts y (B,)."""
        raise NotImplementedError

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log density in nats, (B, 2) -> (B,)."""
        raise NotImplementedError


class Gaussians(Points):
    """Equally likely round Gaussians at `centers`."""

    centers: Tensor

    def draw(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the centers plus noise."""
        return self.centers[y] + self.sigma * torch.randn(len(y), 2, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log density in nats, (B, 2) -> (B,)."""
        squares = (x[:, None] - self.centers.to(x)).square().sum(-1)  # (B, K)
        norm = math.log(self.n_modes * 2 * math.pi * self.sigma**2)
        return torch.logsumexp(-squares / (2 * self.sigma**2), dim=1) - norm


@register("data", "grid25")
class Grid25(Gaussians):
    """Points of 25 Gaussians on a grid, which a GAN easily covers only in part: 50,000 training, 10,000 test points.

    As in VEEGAN (Srivastava et al. 2017, 1705.07761) and PacGAN (Lin et al. 2017, 1712.04086): centers
    {-4, -2, 0, 2, 4}² and standard deviation 0.05. Division by sqrt(8) makes the variance of each coordinate 1 (to
    within 0.0004).
    """

    licence = "generated"

    n_modes = 25
    centers = torch.cartesian_prod(*[torch.tensor([-4.0, -2, 0, 2, 4])] * 2) / math.sqrt(8)
    sigma = 0.05 / math.sqrt(8)


@register("data", "ring8")
class Ring8(Gaussians):
    """Points of 8 Gaussians on a circle (Gulrajani et al. 2017, 1704.00028): 50,000 training, 10,000 test points.

    Radius 2 and standard deviation 0.02. Division by sqrt(2) makes the variance of each coordinate 1 (to within
    0.0003).
    """

    licence = "generated"

    n_modes = 8
    centers = math.sqrt(2) * torch.tensor([(math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)) for k in range(8)])
    sigma = 0.02 / math.sqrt(2)


@register("data", "rings")
class Rings(Points):
    """Points of four concentric circles, blurred by Gaussian noise: 50,000 training, 10,000 test points.

    Radii 0.6, 1.2, 1.8 and 2.4, standard deviation 0.08, divided by 1.16; y counts from the innermost.
    """

    licence = "generated"

    n_modes = 4
    radii = torch.tensor([0.6, 1.2, 1.8, 2.4]) / 1.16
    sigma = 0.08 / 1.16

    def draw(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an angle, and noise in both coordinates."""
        angle = 2 * math.pi * torch.rand(len(y), generator=generator)
        circle = torch.stack([angle.cos(), angle.sin()], dim=1) * self.radii[y, None]
        return circle + self.sigma * torch.randn(len(y), 2, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log density in nats, (B, 2) -> (B,).

        A Gaussian averaged over a circle of radius R is `exp(-(r² + R²) / 2σ²) I0(r R / σ²) / (2πσ²)`, because the
        integral of `exp(r R cos(angle) / σ²)` is a Bessel function.
        """
        r, radii, variance = x.norm(dim=1, keepdim=True), self.radii.to(x), self.sigma**2
        scaled = torch.special.i0e(r * radii / variance).log()  # log(I0(a) exp(-a)): the square has the exponent
        log_rings = -(r - radii).square() / (2 * variance) + scaled  # (B, 4)
        return torch.logsumexp(log_rings, dim=1) - math.log(self.n_modes * 2 * math.pi * variance)


@register("data", "moons")
class Moons(Points):
    """Points of two interleaved half circles: 50,000 training, 10,000 test points.

    The points `(cos t, sin t)` and `(1 - cos t, 1/2 - sin t)` have t uniform on [0, π] and Gaussian noise of 0.05.
    They are moved by (-1/2, -1/4) and divided by (0.87, 0.5).
    """

    licence = "generated"

    n_modes = 2
    noise, middle, scale = 0.05, torch.tensor([0.5, 0.25]), torch.tensor([0.87, 0.5])

    def draw(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an angle, and noise in both coordinates."""
        upper, lower = self.arcs(math.pi * torch.rand(len(y), generator=generator))
        moon = torch.where(y[:, None] == 0, upper, lower)
        moon = moon + self.noise * torch.randn(len(y), 2, generator=generator)
        return (moon - self.middle) / self.scale

    @staticmethod
    def arcs(t: Tensor) -> tuple[Tensor, Tensor]:
        """Points of both half circles without noise, (B, 2) each, at angles t (B,)."""
        upper = torch.stack([t.cos(), t.sin()], dim=1)
        return upper, torch.tensor([1.0, 0.5], dtype=t.dtype) - upper

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density in nats, (B, 2) -> (B,): the Gaussian averaged over the angle, at the middles of 1,000 intervals.

        The relative error is below 1e-3: intervals are a sixteenth of the noise.
        """
        t = (torch.arange(1000, dtype=x.dtype) + 0.5) * (math.pi / 1000)
        points = torch.cat(self.arcs(t)).to(x)  # (2000, 2)
        place = x * self.scale.to(x) + self.middle.to(x)
        squares = torch.cdist(place, points, compute_mode="donot_use_mm_for_euclid_dist").square()
        norm = math.log(len(points) * 2 * math.pi * self.noise**2) - self.scale.log().sum().item()
        return torch.logsumexp(-squares / (2 * self.noise**2), dim=1) - norm


@register("data", "checkerboard")
class Checkerboard(Points):
    """Points in the dark squares of a 4x4 board, a support with holes: 50,000 training, 10,000 test points.

    The board covers [-2, 2]² uniformly. Square (i, j) counted from the lower left is dark if i + j is even, and y
    numbers the 8 dark squares row by row.
    """

    licence = "generated"

    n_modes = 8
    corners = torch.tensor([(i - 2.0, j - 2.0) for j in range(4) for i in range(4) if (i + j) % 2 == 0])

    def draw(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """Draw uniformly in each square."""
        return self.corners[y] + torch.rand(len(y), 2, generator=generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log density in nats, (B, 2) -> (B,): -log 8 on dark squares, minus infinity elsewhere."""
        cell = (x + 2).floor()
        dark = ((cell >= 0) & (cell < 4)).all(1) & (cell.sum(1) % 2 == 0)
        return torch.where(dark, -math.log(8), -math.inf)
