"""Autoencoders: plain, denoising, sparse, contractive and regularised."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Count, Fraction, NonNegative, PositiveInt
from zoo.core.space import PixelSpace
from zoo.core.spaces import Image, Vector, Video
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.models.latent_density import LatentDensity
from zoo.nn.blocks.standardize import Standardize
from zoo.nn.distributions.likelihoods import at_least_float32
from zoo.nn.distributions.mixtures import GaussianMixture
from zoo.nn.losses.jacobian import jacobian_norm
from zoo.nn.networks.components import Decoder, Encoder
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {"linear": nn.Identity(), "relu": F.relu, "sigmoid": torch.sigmoid}


@register("model", "ae")
class Autoencoder(LatentDensity, Model):
    """Autoencoder: plain, denoising, sparse, contractive or regularised; samples by a density fitted on its latents.

    For sampling, a mixture of Gaussians is fitted to the latents of the training data (ex-post density estimation,
    Ghosh et al. 2019). This happens before every validation and at the end of training; checkpoints contain it.

    Args:
        spec: what the data looks like.
        latent_dim: size of the latent.
        noise: standard deviation of normal noise on the input in training, with the clean data as target
            (Vincent et al. 2008).
        mask_prob: probability that an input value is set to zero in training (Vincent et al. 2008).
        latent_activation: activation of the latents; `sparsity=kl` requires "sigmoid".
        sparsity: penalty on the latents: "l1", their absolute values, or "kl", the divergence of their batch means
            from `sparsity_target` (Ng 2011, lecture notes CS294A).
        sparsity_target: target mean activation of `sparsity=kl`.
        sparsity_weight: weight of that penalty.
        contractive_weight: weight of the squared Frobenius norm of the encoder's Jacobian (Rifai et al. 2011).
        num_probes: random sign vectors v that estimate that norm by E |v'J|^2 (Hutchinson 1990), one backward pass
            each; 0 computes it exactly, with one pass per latent dimension.
        latent_weight: beta of beta/2 |z|^2, which keeps latents near the origin (Ghosh et al. 2019, equation 8).
        decoder_penalty: makes the decoder smooth (Ghosh et al. 2019, section 3.2). "l2" is the squared norm of its
            weights, "gradient" the squared Frobenius norm of its Jacobian at the latents, by `num_probes` too.
            The third choice of the paper, spectral normalisation, is `model.decoder.spectral_norm=true`.
        decoder_weight: of that penalty.
        n_components: of the mixture.
        optimizer: with its learning rate and schedule. Penalties on the latents need weight decay, or the encoder
            shrinks its output and the decoder grows to compensate.
        encoder: data -> latents.
        decoder: latents -> data.

    Raises:
        ZooError: `sparsity=kl` without `latent_activation=sigmoid`.
    """

    accepts = (Image, Vector, Video)
    paper = "Vincent et al. 2008 (ICML); Rifai et al. 2011 (ICML); Ghosh et al. 2019 (arXiv:1903.12436)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent_dim: PositiveInt = 16,
        noise: NonNegative = 0.0,
        mask_prob: Fraction = 0.0,
        latent_activation: Literal["linear", "relu", "sigmoid"] = "linear",
        sparsity: Literal["none", "l1", "kl"] = "none",
        sparsity_target: Fraction = 0.1,
        sparsity_weight: NonNegative = 0.1,
        contractive_weight: NonNegative = 0.0,
        num_probes: Count = 1,
        latent_weight: NonNegative = 0.0,
        decoder_penalty: Literal["none", "l2", "gradient"] = "none",
        decoder_weight: NonNegative = 0.01,
        n_components: PositiveInt = 48,
        optimizer: Optimizer = "adamw",
        encoder: Encoder = "auto",
        decoder: Decoder = "auto",
    ) -> None:
        super().__init__(spec)
        if sparsity == "kl" and latent_activation != "sigmoid":
            raise ZooError("model.sparsity=kl: latents must be probabilities. Set model.latent_activation=sigmoid.")
        self.latent_dim, self.noise, self.mask_prob = latent_dim, noise, mask_prob
        self.latent_activation = latent_activation
        self.sparsity, self.sparsity_target, self.sparsity_weight = sparsity, sparsity_target, sparsity_weight
        self.contractive_weight, self.num_probes = contractive_weight, num_probes
        self.latent_weight, self.decoder_penalty, self.decoder_weight = latent_weight, decoder_penalty, decoder_weight
        self.standardize = Standardize(spec)
        self.encoder = self.build_component("encoder", "encoder", spec.shape, latent_dim)
        self.decoder = self.build_component("decoder", "decoder", latent_dim, spec.shape)
        self.density = GaussianMixture(latent_dim, n_components)

    # -- the objective ---------------------------------------------------------------------------------------

    def latents(self, x: Tensor) -> Tensor:
        """Standardised data (B, *shape) -> latents (B, latent_dim), with gradients."""
        return ACTIVATIONS[self.latent_activation](self.encoder(x))

    def corrupt(self, x: Tensor) -> Tensor:
        """Add noise and mask values, in training only."""
        if not self.training:
            return x
        if self.noise:
            x = x + self.noise * torch.randn_like(x)
        return x * (torch.rand_like(x) >= self.mask_prob) if self.mask_prob else x

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`reconstruction`, the squared error summed over dimensions, plus the penalties by their weights."""
        x, _ = batch
        x = self.standardize(x)
        z = self.latents(self.corrupt(x))
        terms = {"reconstruction": (at_least_float32(self.decoder(z)) - x).square().flatten(1).sum(1).mean()}
        total = terms["reconstruction"]
        if self.sparsity != "none":
            terms["sparsity"] = l1(z) if self.sparsity == "l1" else kl_to_rate(z, self.sparsity_target)
            total = total + self.sparsity_weight * terms["sparsity"]
        if self.contractive_weight:
            terms["contraction"] = self.jacobian_norm(x).mean()
            total = total + self.contractive_weight * terms["contraction"]
        if self.latent_weight:
            terms["latent_norm"] = z.float().square().sum(1).mean()
            total = total + self.latent_weight / 2 * terms["latent_norm"]
        if self.decoder_penalty != "none":
            terms["decoder_penalty"] = self.decoder_regularizer(z)
            total = total + self.decoder_weight * terms["decoder_penalty"]
        return {"loss": total, **terms}

    def jacobian_norm(self, x: Tensor) -> Tensor:
        """Squared Frobenius norm of d latents / d x of each sample, (B,), differentiable."""
        return jacobian_norm(self.latents, x, self.num_probes)

    def decoder_regularizer(self, z: Tensor) -> Tensor:
        """Penalty on the decoder: of its weights, or of its Jacobian at latents (B, latent_dim)."""
        if self.decoder_penalty == "gradient":
            return jacobian_norm(lambda given: at_least_float32(self.decoder(given)), z, self.num_probes).mean()
        return torch.stack([p.square().sum() for p in self.decoder.parameters()]).sum()

    def modules_to_compile(self) -> list[nn.Module]:
        """Encoder and decoder, without one that is differentiated twice, which compilation does not support."""
        kept = [] if self.contractive_weight else [self.encoder]
        return kept if self.decoder_penalty == "gradient" else [*kept, self.decoder]

    # -- the density of the latents --------------------------------------------------------------------------

    def latents_to_fit(self, batch: Batch) -> Tensor:
        """Latents (B, latent_dim) of the clean data."""
        return self.encode(batch.x)

    # -- abilities --------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Decode draws from the density of the latents.

        Raises:
            ZooError: the density is not fitted yet, or a condition is given.
        """
        self.check_condition(condition)
        return self.decode(self.sample_prior(n, generator))

    @torch.no_grad()
    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data (B, *shape) -> latents (B, latent_dim), without corruption."""
        return self.latents(self.standardize(x))

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, latent_dim) -> data (B, *shape)."""
        x = at_least_float32(self.decoder(z))
        return x.clamp(0, 1) if isinstance(self.spec.x, PixelSpace) else self.standardize.inverse(x)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data -> data, through the latent."""
        return self.decode(self.encode(x))

    def interpolate(
        self, n: int, steps: int, *, generator: torch.Generator | None = None, between: Tensor | None = None
    ) -> Tensor:
        """n linear interpolations between draws of latents, or between data (2 n, *shape): (n, steps, *shape)."""
        ends = self.sample_prior(2 * n, generator) if between is None else self.encode(between)
        t = torch.linspace(0, 1, steps, device=ends.device)[:, None]
        paths = (1 - t) * ends[:n, None] + t * ends[n:, None]  # (n, steps, latent_dim)
        return self.decode(paths.flatten(0, 1)).unflatten(0, (n, steps))

    def export_module(self) -> ExportableSampler:
        """Random numbers for the density of the latents -> data.

        Raises:
            ZooError: the density is not fitted yet.
        """
        density = self.fitted_density()
        inputs = [InputSpec("choice", "uniform"), InputSpec("noise", "normal", (self.latent_dim,))]
        return ExportableSampler(
            lambda choice, noise: self.decode(self._in_range(density.transform(choice, noise))),
            inputs,
            density,
            self.decoder,
            self.standardize,
        )

    def charts(self) -> dict[str, list[str]]:
        """Loss, and the reconstruction error."""
        return {
            "loss": ["train/loss", "val/loss"],
            "reconstruction": ["train/reconstruction", "val/reconstruction"],
        }

    def sample_prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws from the density of the latents, (n, latent_dim)."""
        return self._in_range(self.fitted_density().sample(n, generator))

    def _in_range(self, z: Tensor) -> Tensor:
        """Latents clamped to the range of the activation."""
        low, high = {"linear": (None, None), "relu": (0.0, None), "sigmoid": (0.0, 1.0)}[self.latent_activation]
        return z if low is None else z.clamp(low, high)


def l1(z: Tensor) -> Tensor:
    """Sum of absolute latents, averaged over the batch."""
    return z.float().abs().sum(1).mean()


def kl_to_rate(z: Tensor, rate: float) -> Tensor:
    """Sum over latents of KL(Bernoulli(rate) || Bernoulli(mean activation in the batch)), nats."""
    mean = z.float().mean(0).clamp(1e-6, 1 - 1e-6)
    cross = -(rate * mean.log() + (1 - rate) * torch.log1p(-mean))
    return (cross - entropy(rate)).sum()


def entropy(p: float) -> float:
    """Entropy of a Bernoulli variable, nats."""
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)
