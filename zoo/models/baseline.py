"""What every generative model of images or vectors must beat: models that are fitted in closed form or by EM."""

import math
from typing import Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.base import Batch
from zoo.models.fitted import FIT_ON, Fitted
from zoo.nn.likelihood import to_level
from zoo.nn.mixture import GaussianMixture, PixelMixture
from zoo.registry import register
from zoo.spec import DataSpec, NonNegative, Positive, PositiveInt

GMM_DIM = 1024  # each component has a matrix of its square
PCA_DIM = 8192  # one matrix of its square
EM_WORK = 50_000_000  # samples x components x levels, at most: an image of 784 values then takes a minute or two


def unlabelled(model: Fitted, condition: Tensor | None) -> None:
    """Refuse a condition."""
    if condition is not None:
        raise ZooError(f"model {model.registered_name} knows no labels, so a condition means nothing: leave it out.")


def affordable(model: Fitted, limit: int) -> None:
    """Refuse data of too many values for a matrix of their square."""
    if model.spec.dim > limit:
        raise ZooError(
            f"model {model.registered_name} has covariances of all pairs of values, and {model.spec} has "
            f"{model.spec.dim:,} values where at most {limit:,} are affordable: choose smaller images (data.size=16), "
            f"or model=pixel_mixture."
        )


class Density(Fitted):
    """A density over R^D that is fitted to samples (N, D); images are vectors of their values."""

    likelihood_kind = "density"

    def keep(self, batch: Batch) -> Tensor:
        """Vectors (B, D)."""
        return batch[0].flatten(1)

    def shaped(self, x: Tensor) -> Tensor:
        """Vectors (B, D) -> data (B, *shape), which for images lies in [0, 1]."""
        x = x.unflatten(1, self.spec.shape)
        return x.clamp(0, 1) if self.spec.kind == "image" else x


@register("model", "gmm")
class GaussianMixtureModel(Density):
    """Gaussian mixture with full covariances, fitted by EM.

    Images get normal noise before, as a value that is the same in all training images has an infinite density. Before
    it is fitted, the model is a standard normal.

    Args:
        spec: what the data looks like; at most 1,024 values.
        components: at most so many; fewer where there are fewer samples.
        noise: its standard deviation, for images.
        samples: training samples to fit to, at most.
        seed: of the start of EM and of the noise.

    Raises:
        ZooError: data of too many values.
    """

    paper = "Dempster, Laird & Rubin 1977 (JRSS B 39)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        components: PositiveInt = 10,
        noise: NonNegative = 0.05,
        samples: PositiveInt = 10_000,
        seed: int = 0,
    ) -> None:
        super().__init__(spec)
        affordable(self, GMM_DIM)
        self.fit_on, self.std, self.seed = samples, noise if spec.kind == "image" else 0.0, seed
        self.density = GaussianMixture(spec.dim, components)
        self.density.weights[0] = 1

    def fit(self, data: Tensor) -> None:
        """EM on (N, D)."""
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(data.shape, generator=generator) if self.std else 0.0
        self.density.fit(data + self.std * noise, self.seed)

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log density, nats (B,)."""
        return self.density.log_prob(x.flatten(1))

    def sample(  # type: ignore[override]
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (n, *shape); images are cut to [0, 1]."""
        unlabelled(self, condition)
        return self.shaped(self.density.sample(n, generator))


@register("model", "ppca")
class PPCA(Density):
    """Probabilistic PCA: x = W z + mean + noise with z ~ N(0, I), at the maximum of its likelihood in closed form.

    Before it is fitted, the model is a standard normal.

    Args:
        spec: what the data looks like; at most 8,192 values.
        latent_dim: size of z; at most one less than the data has values.

    Raises:
        ZooError: data of too many values.
    """

    paper = "Tipping & Bishop 1999 (JRSS B 61)"
    mean: Tensor  # (D,)
    weight: Tensor  # (D, latent_dim)
    variance: Tensor  # () of the noise

    def __init__(self, spec: DataSpec, *, latent_dim: PositiveInt = 16) -> None:
        super().__init__(spec)
        affordable(self, PCA_DIM)
        self.register_buffer("mean", torch.zeros(spec.dim))
        self.register_buffer("weight", torch.zeros(spec.dim, min(latent_dim, spec.dim - 1)))
        self.register_buffer("variance", torch.ones(()))

    def fit(self, data: Tensor) -> None:
        """Equations 7 and 8 of the paper, in double precision."""
        mean, covariance = data.mean(0, dtype=torch.float64), torch.zeros(data.shape[1], data.shape[1]).double()
        for part in data.split(4096):
            offset = part.double() - mean
            covariance += offset.T @ offset / len(data)
        values, vectors = torch.linalg.eigh(covariance)  # ascending
        rest = data.shape[1] - self.weight.shape[1]
        variance = values[:rest].mean().clamp(min=1e-6)
        top, directions = values[rest:].flip(0), vectors[:, rest:].flip(1)
        self.mean.copy_(mean)
        self.weight.copy_(directions * (top - variance).clamp(min=0).sqrt())
        self.variance.copy_(variance)

    def _infer(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x - mean (B, D), the mean of z given x (B, latent_dim), and M = W'W + variance I."""
        with torch.autocast(x.device.type, enabled=False):
            offset = x.flatten(1).to(self.mean.dtype) - self.mean
            inner = self.weight.mT @ self.weight
            inner = inner + self.variance * torch.eye(len(inner), device=inner.device, dtype=inner.dtype)
            return offset, torch.linalg.solve(inner, (offset @ self.weight).mT).mT, inner

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log density, nats (B,): inverse and determinant of W W' + variance I by those of M."""
        offset, z, inner = self._infer(x)
        with torch.autocast(x.device.type, enabled=False):
            residual = offset - z @ self.weight.mT  # offset' C^-1 offset = offset' (offset - W z) / variance
            mahalanobis = (offset * residual).sum(1) / self.variance
            spare = self.spec.dim - len(inner)
            log_det = spare * self.variance.log() + torch.linalg.slogdet(inner).logabsdet
            return -0.5 * (mahalanobis + log_det + self.spec.dim * math.log(2 * math.pi))

    def sample(  # type: ignore[override]
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: bool = True,
    ) -> Tensor:
        """Draws (n, *shape), without `noise` the means of p(x | z); images are cut to [0, 1]."""
        unlabelled(self, condition)
        x = self.noise(n, self.weight.shape[1], generator=generator) @ self.weight.mT + self.mean
        if noise:
            x = x + self.variance.sqrt() * self.noise(n, self.spec.dim, generator=generator)
        return self.shaped(x)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of z given x, (B, latent_dim)."""
        return self._infer(x)[1]

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of x given z."""
        return self.shaped(z @ self.weight.mT + self.mean)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of x given the mean of z."""
        return self.decode(self.encode(x))

    def interpolate(self, n: int, steps: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n walks between draws of z, (n, steps, *shape), along cos t z0 + sin t z1, which is standard normal too."""
        a, b = self.noise(2 * n, 1, self.weight.shape[1], generator=generator).chunk(2)  # (n, 1, latent_dim)
        t = torch.linspace(0, math.pi / 2, steps, device=a.device)[:, None]
        return self.decode((t.cos() * a + t.sin() * b).flatten(0, 1)).unflatten(0, (n, steps))


@register("model", "pixel_mixture")
class PixelMixtureModel(Fitted):
    """Mixture of components whose pixels are independent, each with a probability for every level; fitted by EM.

    With two levels it is the Bernoulli mixture; with one component, the frequency of each level at each pixel. Before
    it is fitted, every level is as likely.

    Args:
        spec: what the data looks like. Probabilities take 4 x components x levels x values bytes.
        components: how many.
        smoothing: observations of each pixel that a component begins with, spread evenly over the levels.
        steps: of EM, at most.
        samples: training images to fit to, at most; fewer where samples x components x levels would exceed
            50,000,000.
        seed: of the start of EM.
    """

    accepts = ("image",)
    paper = "McLachlan & Peel 2000 (Finite Mixture Models); Bishop 2006, section 9.3.3"
    likelihood_kind = "mass"

    def __init__(
        self,
        spec: DataSpec,
        *,
        components: PositiveInt = 20,
        smoothing: Positive = 1.0,
        steps: PositiveInt = 40,
        samples: PositiveInt = 60_000,
        seed: int = 0,
    ) -> None:
        super().__init__(spec)
        self.fit_on = max(min(samples, EM_WORK // (components * spec.levels)), 1)
        self.smoothing, self.em_steps, self.seed = smoothing, steps, seed
        self.density = PixelMixture(spec.dim, spec.levels, components)

    def keep(self, batch: Batch) -> Tensor:
        """Levels (B, D)."""
        return compact(batch[0], self.spec.levels).flatten(1)

    def fit(self, data: Tensor) -> None:
        """EM on levels (N, D), on the device of the model."""
        self.density.fit(data.to(self.device), self.smoothing, self.em_steps, seed=self.seed)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per image, and in bits for each value."""
        loss = super().loss(batch)["loss"]
        return {"loss": loss, "bits_per_dim": loss / (self.spec.dim * math.log(2))}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log probability, nats (B,)."""
        with torch.autocast(x.device.type, enabled=False):
            return self.density.log_prob(to_level(x, self.spec.levels).flatten(1))

    def sample(  # type: ignore[override]
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (n, C, H, W)."""
        unlabelled(self, condition)
        return self.density.sample(n, generator).unflatten(1, self.spec.shape) / (self.spec.levels - 1)

    def dashboard(self) -> dict[str, list[str]]:
        """As of a transformer over pixels."""
        return {"nats": ["train/loss", "val/loss"], "bits per dim": ["train/bits_per_dim", "val/bits_per_dim"]}


@register("model", "noise")
class Noise(Fitted):
    """Uniform noise: of images every level, of vectors every point in the box around the training data.

    A vector outside the box has no probability, so `log_prob` is -inf there. `loss` is the cost of a point inside, the
    logarithm of the box's volume, and `outside` says how many are not. Before it is fitted, the box is [0, 1]^D.
    """

    paper = "Jaynes 1957 (Physical Review 106)"
    low: Tensor  # (D,), vectors only
    high: Tensor  # (D,)

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.likelihood_kind = "mass" if spec.kind == "image" else "density"
        size, self.fit_on = (0, 1) if spec.kind == "image" else (spec.dim, FIT_ON)
        self.register_buffer("low", torch.zeros(size))
        self.register_buffer("high", torch.ones(size))

    def fit(self, data: Tensor) -> None:
        """The extremes of vectors; of images nothing need be known."""
        if self.spec.kind == "vector":
            self.low.copy_(data.min(0).values)
            self.high.copy_(data.max(0).values.clamp(min=data.min(0).values + 1e-6))  # a constant has no width

    @property
    def cost(self) -> Tensor:
        """Nats of every sample that is possible, ()."""
        if self.spec.kind == "image":
            return self.low.new_tensor(self.spec.dim * math.log(self.spec.levels))
        return (self.high - self.low).log().sum()

    def possible(self, x: Tensor) -> Tensor:
        """Inside the box? (B,)"""
        if self.spec.kind == "image":
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        return ((x >= self.low) & (x <= self.high)).all(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats of a possible sample, and the share of samples that are none."""
        return {"loss": self.cost, "outside": 1 - self.possible(batch[0]).float().mean()}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact nats (B,)."""
        return torch.where(self.possible(x), -self.cost, -torch.inf)

    def sample(  # type: ignore[override]
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws (n, *shape)."""
        unlabelled(self, condition)
        if self.spec.kind == "image":
            level = torch.randint(self.spec.levels, (n, *self.spec.shape), generator=generator)
            return level.to(self.device) / (self.spec.levels - 1)
        return self.low + (self.high - self.low) * torch.rand(n, self.spec.dim, generator=generator).to(self.low)


@register("model", "copies")
class Copies(Fitted):
    """Training samples, given out again: perfect to look at, and what a test for memorisation must expose.

    `loss` stands in for a likelihood, which there is none: the squared distance to the nearest sample that is stored,
    summed over dimensions. Before it is fitted, one sample of zeros is stored.

    Args:
        spec: what the data looks like.
        samples: to store, at most; images as the numbers of their levels.
    """

    paper = "Efron 1979 (Annals of Statistics 7)"
    stored: Tensor  # (N, *shape); images uint8, or int32 for more than 256 levels

    def __init__(self, spec: DataSpec, *, samples: PositiveInt = 10_000) -> None:
        super().__init__(spec)
        self.fit_on = samples
        zero = torch.zeros(1, *spec.shape)
        self.register_buffer("stored", compact(zero, spec.levels) if spec.kind == "image" else zero)

    def keep(self, batch: Batch) -> Tensor:
        """Images as levels; vectors as they are."""
        return compact(batch[0], self.spec.levels) if self.spec.kind == "image" else batch[0]

    def fit(self, data: Tensor) -> None:
        """Store it."""
        self.stored = data.to(self.device)

    def given_out(self, index: Any = slice(None)) -> Tensor:
        """Stored samples in the form of the data."""
        chosen = self.stored[index]
        return chosen / (self.spec.levels - 1) if self.spec.kind == "image" else chosen

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Squared distance to the nearest stored sample."""
        x = batch[0]
        nearest = torch.cdist(x.flatten(1), self.given_out().flatten(1)).argmin(1)
        return {"loss": (x - self.given_out(nearest)).square().flatten(1).sum(1).mean()}

    def sample(  # type: ignore[override]
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Stored samples, drawn with replacement: (n, *shape)."""
        unlabelled(self, condition)
        return self.given_out(torch.randint(len(self.stored), (n,), generator=generator).to(self.device))


def compact(x: Tensor, levels: int) -> Tensor:
    """Images in [0, 1] as the numbers of their levels, in bytes where they fit."""
    return to_level(x, levels).to(torch.uint8 if levels <= 256 else torch.int32)
