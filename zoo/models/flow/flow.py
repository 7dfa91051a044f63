"""Normalising flows: an invertible network from data to noise, trained by its exact likelihood."""

import math

import torch
from torch import Tensor

from zoo.core.errors import ConfigError, ZooError
from zoo.core.registry import register
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.models.results import Likelihood
from zoo.nn.blocks.standardize import Standardize
from zoo.nn.distributions.likelihoods import to_level
from zoo.nn.distributions.normal import slerp
from zoo.nn.flows.base import ActNorm, FlowTransform, Transform
from zoo.nn.flows.dequantization import Dequantization, Dequantizer
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec

FIRST_BATCH = 512  # samples that set the activation norms


@register("model", "flow")
class Flow(Model):
    """Normalizing flow (Rezende & Mohamed 2015, arXiv:1505.05770): exact likelihoods by an invertible network.

    With z = f(x), log p(x) = log N(z; 0, I) + log |det dz/dx|; the transform f is any of `zoo.nn.flows`. Vectors have
    an exact density. An image has levels, and uniform noise fills the space between them: v = level + u with
    u ~ U[0, 1). The mean of log p(v) is a lower bound on the log-probability of the image (Theis et al. 2015,
    arXiv:1511.01844, section 3.1). With noise that is learned too, the bound is tighter. `loss` is nats per sample: of
    the density, or of this bound.

    Args:
        spec: what the data looks like.
        transform: from data to noise.
        conditional: condition the transform on class labels.
        dequantization: noise between the levels of images.
        optimizer: with its learning rate and schedule.

    Raises:
        ConfigError: another dequantisation than the default for vectors and latents, which have no levels.
    """

    paper = "Rezende & Mohamed 2015 (arXiv:1505.05770)"
    likelihood_kind = "continuous"  # of `log_prob`

    def __init__(
        self,
        spec: DataSpec,
        *,
        transform: FlowTransform = "coupling",
        conditional: bool = False,
        dequantization: Dequantization = "uniform",
        optimizer: Optimizer = "adam",
    ) -> None:
        super().__init__(spec)
        self.levels = spec.x.levels if isinstance(spec.x, Image) else 0
        if self.levels:
            self.lacks("log_prob")  # levels have probabilities; see `bound`
            self.dequantize: Dequantizer = self.build_component("dequantization", "dequantization", spec.shape)
        elif dequantization not in ("uniform", {"name": "uniform"}):
            raise ConfigError(
                f"model.dequantization={dequantization}: {spec} has no levels to put noise between. Leave it out."
            )
        self.standardize = Standardize(spec, images=True)
        n_classes = spec.n_classes if conditional else 0
        self.transform: Transform = self.build_component(
            "transform", "transform", spec.shape, n_classes, method="inverse"
        )
        if not self.transform.exportable:
            self.lacks("export")

    def fit_to_data(self, data: DataModule) -> None:
        """Fit the standardisation; activation norms that are not set yet normalise a first batch."""
        super().fit_to_data(data)
        norms = [m for m in self.transform.modules() if isinstance(m, ActNorm) and not m.initialized]
        if norms:
            generator = torch.Generator().manual_seed(0)
            rows = torch.arange(min(FIRST_BATCH, len(data.train[0])))
            x, y = data.fetch(data.train, rows, generator, train=False)
            noise = torch.rand(x.shape, generator=generator)
            for norm in norms:
                norm.fitting = True
            with torch.no_grad():
                self.transform(self.prepare(x.to(self.device), noise.to(self.device)), self.labels(y.to(self.device)))
            for norm in norms:
                norm.fitting = False

    # -- likelihoods ---------------------------------------------------------------------------------------------

    def prepare(self, x: Tensor, noise: Tensor | float = 0.5) -> Tensor:
        """Standardised data; images with noise in [0, 1) in units of a level, (B, *shape)."""
        return self.standardize((to_level(x, self.levels) + noise) / self.levels if self.levels else x)

    def log_density(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Log-density at standardised data, per unit of the data, or of a level for images; nats (B,)."""
        z, log_det = self.transform(x, y)
        base = -0.5 * z.flatten(1).square().sum(1) - 0.5 * self.spec.size * math.log(2 * math.pi)
        units = self.spec.size * math.log(self.levels) if self.levels else 0.0
        return base + log_det + self.standardize.log_abs_det - units

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-density of vectors, nats (B,)."""
        return self.log_density(self.prepare(x), self.labels(y))

    def bound(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> Tensor:
        """Lower bound on the log-probability of an image's levels, nats (B,), from k draws of the noise.

        It is the logarithm of the mean of k densities, or the mean of the logarithms where those are estimates.
        """
        y = self.labels(y)

        def draw() -> Tensor:
            noise, log_q = self.dequantize(x)
            return self.log_density(self.prepare(x, noise), y) - log_q

        draws = torch.stack([draw() for _ in range(k)])  # (k, B)
        return draws.logsumexp(0) - math.log(k) if self.transform.exact else draws.mean(0)

    def likelihoods(self, x: Tensor, y: Tensor | None = None, *, k: int = 1) -> tuple[Likelihood, ...]:
        """Images: a bound on the probability of their levels. Vectors: the density."""
        suffix = self.transform.likelihood_suffix
        if self.levels:
            name = ("nelbo" if k == 1 or not self.transform.exact else "nll_iw") + suffix
            return (Likelihood(self.bound(x, y, k), "discrete", exact=False, name=name),)
        return (Likelihood(self.log_prob(x, y), "continuous", exact=True, name="nll" + suffix),)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per sample."""
        x, y = batch.x, batch.y
        if not self.levels:
            return {"loss": -self.log_prob(x, y).mean()}
        loss = -self.bound(x, y).mean()
        return {"loss": loss, "bits_per_dim": loss.detach() / (self.spec.size * math.log(2))}

    def labels(self, y: Tensor | None) -> Tensor | None:
        """Labels for the transform; None where the model is unconditional.

        Raises:
            ZooError: no labels for a conditional model.
        """
        if self.conditional and y is None:
            raise ZooError("y=None: the model is conditional. Pass the class labels of the data.")
        return y if self.conditional else None

    # -- latents and samples -------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data (B, *shape) -> noise (B, D); images from the middle of their levels."""
        return self.transform.latents(self.prepare(x), self.labels(y)).flatten(1)

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Noise (B, D) -> data (B, *shape); images on their levels."""
        x = self.standardize.inverse(self.transform.inverse(z.unflatten(1, self.spec.shape), self.labels(y)))
        if not self.levels:
            return x
        return (x * self.levels).floor().clamp(0, self.levels - 1) / (self.levels - 1)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data -> noise -> data: the identity, up to rounding."""
        return self.decode(self.encode(x, y), y)

    def sample_prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise (n, D)."""
        return self.randn(n, self.spec.size, generator=generator)

    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Draw n samples, (n, *shape).

        Args:
            n: number of samples.
            condition: class labels (n,) of a conditional model; None draws them at random.
            generator: source of randomness.
        """
        self.check_condition(condition)
        y = self.resolve_labels(n, condition, generator) if self.conditional else None
        return self.decode(self.sample_prior(n, generator), y)

    def interpolate(
        self,
        n: int,
        steps: int,
        *,
        generator: torch.Generator | None = None,
        between: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """n interpolations between draws, or between data, (n, steps, *shape), of one class each.

        Draws follow cos t z0 + sin t z1, which is standard normal at every t. Between data, the noise turns from one
        end to the other.

        Args:
            n: number of interpolations.
            steps: of each, with both ends.
            generator: source of randomness.
            between: the first ends, then the last ones, (2 n, *shape); None draws them.
            condition: class labels (n,); None draws them at random.
        """
        y = self.resolve_labels(n, condition, generator)
        ends = self.sample_prior(2 * n, generator) if between is None else self.encode(between, y.repeat(2))
        t, (start, end) = torch.linspace(0, 1, steps, device=ends.device)[:, None], ends[:, None].chunk(2)
        angle = t * math.pi / 2
        z = angle.cos() * start + angle.sin() * end if between is None else slerp(start, end, t)  # (n, steps, D)
        return self.decode(z.flatten(0, 1), y.repeat_interleave(steps)).unflatten(0, (n, steps))

    def export_module(self) -> ExportableSampler:
        """Noise, and labels if conditional -> data."""
        inputs = [InputSpec("noise", "normal", (self.spec.size,))]
        if self.conditional:
            inputs.append(InputSpec("label", "class", high=self.spec.n_classes, shares=tuple(self.class_shares)))
        return ExportableSampler(self.decode, inputs, self.transform, self.standardize)

    # -- training ------------------------------------------------------------------------------------------------

    def charts(self) -> dict[str, list[str]]:
        """Loss, and for images bits per dimension, which compares between families."""
        charts = {"loss": ["train/loss", "val/loss"]}
        return charts | ({"bits per dim": ["train/bits_per_dim", "val/bits_per_dim"]} if self.levels else {})
