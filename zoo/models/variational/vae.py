"""Variational autoencoders: latent-variable models trained on a lower bound of their likelihood."""

import math
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Component, Count, NonNegative, PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import Likelihood
from zoo.models.base import Model
from zoo.models.latent_density import LatentDensity
from zoo.nn.blocks.standardize import Standardize
from zoo.nn.distributions.likelihoods import Likelihood as Observation
from zoo.nn.distributions.likelihoods import at_least_float32, soft_clamp
from zoo.nn.distributions.mixtures import GaussianMixture, LearnedMixture
from zoo.nn.distributions.normal import kl_to_standard, log_normal, slerp
from zoo.nn.networks.components import Decoder, Encoder
from zoo.nn.optim.components import Optimizer
from zoo.nn.optim.lr_schedule import lr_factor
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec
from zoo.nn.samplers.noise import fork

LOG_STD_BOUND = 6.0  # |log std| of the posterior
PRIOR_SPEED = 10  # learning rate of the learned prior over that of the networks, to follow their posteriors
VARIANCE_SPEED = 3  # so does the learned variance: ten times over-fits the digits, equal steps lag on faces
ROWS = 4096  # largest decoder batch when a bound is evaluated,
VALUES = 2**21  # and the most numbers in its output: 8 MB, and about 40 times as much in a convolutional decoder


@register("model", "vae")
class VAE(LatentDensity, Model):
    """Variational autoencoder: ELBO or importance-weighted bound, any likelihood, optional class labels.

    p(x, z) = p(z) p(x | decoder(z)) and q(z | x) = N(mean, std^2) from the encoder. All terms are nats per
    sample, summed over dimensions; beta is the only weight among them.

    Args:
        spec: what the data looks like.
        latent_dim: size of z.
        likelihood: p(x | z). A Gaussian with one learned variance suits every kind of data. Bernoulli suits binary
            images; on grey images it is a soft cross-entropy and not a likelihood.
        prior: "standard" is N(0, I). A "mixture" of Gaussians is learned, and its KL a Monte Carlo estimate (a baseline
            of Tomczak & Welling 2017, arXiv:1705.07120). With "fitted", training and bounds use N(0, I). Samples come
            from a mixture that is fitted to the latents (Ghosh et al. 2019, arXiv:1903.12436).
        n_components: of the mixture.
        objective: "elbo" (Kingma & Welling 2013, equation 7), or "iwae", the logarithm of the mean importance weight
            (Burda et al. 2015, equation 8). They are equal for one sample.
        num_samples: latents per training sample.
        beta: weight of the KL (Higgins et al. 2017); the loss is a bound for 1.
        free_bits: KL floor per latent dimension, in nats of the batch mean (Kingma et al. 2016, arXiv:1606.04934).
        kl_warmup_steps: batches over which beta rises linearly from 0, in training only.
        conditional: condition encoder and decoder on class labels (Sohn et al. 2015).
        optimizer: with its learning rate and schedule.
        full_lr_size: largest sample size (number of values) with the full learning rate. Above it, the rate falls with
            the square root of the size. 0 switches this off.
        feature_dim: size of the encoder's output; one linear layer of it, and of the label, gives the posterior.
        encoder: data -> features.
        decoder: latents, and labels if conditional -> parameters of the likelihood.

    Raises:
        ZooError: `free_bits` where the KL is not a sum over dimensions.
    """

    paper = "Kingma & Welling 2013 (arXiv:1312.6114)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent_dim: PositiveInt = 16,
        likelihood: Annotated[str | dict[str, Any], Component("likelihood")] = "gaussian",
        prior: Literal["standard", "mixture", "fitted"] = "standard",
        n_components: PositiveInt = 128,
        objective: Literal["elbo", "iwae"] = "elbo",
        num_samples: PositiveInt = 1,
        beta: NonNegative = 1.0,
        free_bits: NonNegative = 0.0,
        kl_warmup_steps: Count = 0,
        conditional: bool = False,
        optimizer: Optimizer = "adamw",
        full_lr_size: Count = 0,
        feature_dim: PositiveInt = 128,
        encoder: Encoder = "auto",
        decoder: Decoder = "auto",
    ) -> None:
        super().__init__(spec)
        if free_bits and (prior == "mixture" or objective == "iwae"):
            raise ZooError(
                f"model.free_bits={free_bits}: the KL must be a sum over latent dimensions. "
                f"Choose model.objective=elbo with model.prior=standard, or model.free_bits=0."
            )
        self.latent_dim, self.objective, self.num_samples = latent_dim, objective, num_samples
        self.beta, self.free_bits, self.kl_warmup_steps = beta, free_bits, kl_warmup_steps
        self.n_labels = spec.n_classes if conditional else 0
        if conditional:
            self.lacks("first_stage")  # a sample of a prior has no label

        self.standardize = Standardize(spec)
        self.likelihood: Observation = self.build_component("likelihood", "likelihood", spec)
        self.likelihood_kind = self.likelihood.kind
        if self.likelihood_kind == "none":
            self.lacks("likelihood")
        self.encoder = self.build_component("encoder", "encoder", spec.shape, feature_dim)
        self.head = nn.Linear(feature_dim + self.n_labels, 2 * latent_dim)
        given = latent_dim + self.n_labels, self.likelihood.params_shape
        self.decoder = self.build_component("decoder", "decoder", *given)
        self.prior = LearnedMixture(latent_dim, n_components) if prior == "mixture" else None
        self.density = GaussianMixture(latent_dim, n_components) if prior == "fitted" else None

    # -- the distributions -----------------------------------------------------------------------------------

    def posterior(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(z | x), each (B, latent_dim)."""
        features = F.silu(self.encoder(self.standardize(x)))
        mean, raw = at_least_float32(self.head(self._labelled(features, y))).chunk(2, dim=1)
        return mean, soft_clamp(raw, LOG_STD_BOUND)

    def params(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, latent_dim) -> the parameters of p(x | z)."""
        return self.decoder(self._labelled(z, y))

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), (..., latent_dim) -> (...)."""
        if self.prior is not None:
            return self.prior.log_prob(z)
        return log_normal(z, torch.zeros_like(z), torch.zeros_like(z))

    def _labelled(self, h: Tensor, y: Tensor | None) -> Tensor:
        if not self.conditional:
            return h
        if y is None:
            raise ZooError("y=None: the model is conditional. Pass the class labels of the data.")
        return torch.cat([h, F.one_hot(y, self.n_labels).to(h.dtype)], dim=1)

    # -- the objective ---------------------------------------------------------------------------------------

    def sample_posterior_terms(
        self, x: Tensor, y: Tensor | None, mean: Tensor, log_std: Tensor, k: int
    ) -> tuple[Tensor, Tensor]:
        """k latents for each x: log p(x | z) and log q(z | x) - log p(z), both (k, B)."""
        z = mean + log_std.exp() * torch.randn(k, *mean.shape, device=mean.device, dtype=mean.dtype)
        if k > 1:
            x = x.repeat(k, *[1] * (x.dim() - 1))
            y = None if y is None else y.repeat(k, *[1] * (y.dim() - 1))
        log_px = self.likelihood.log_prob(self.params(z.flatten(0, 1), y), self.standardize(x))
        log_px = (log_px + self.standardize.log_abs_det).unflatten(0, (k, -1))
        return log_px, log_normal(z, mean, log_std) - self.log_prior(z)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Negative bound; `reconstruction` = -E log p(x | z), `kl`, and `elbo` = -(reconstruction + kl)."""
        x, y = batch
        mean, log_std = self.posterior(x, y)
        log_px, log_ratio = self.sample_posterior_terms(x, y, mean, log_std, self.num_samples)
        by_dim = kl_to_standard(mean, log_std).mean(0) if self.prior is None else None
        reconstruction = -log_px.mean()
        kl = log_ratio.mean() if by_dim is None else by_dim.sum()
        terms = {"reconstruction": reconstruction, "kl": kl, "elbo": -reconstruction - kl}
        beta = self.beta * lr_factor(self.step, 0, warmup=self.kl_warmup_steps) if self.training else self.beta
        if self.objective == "iwae" and self.num_samples > 1:
            terms["loss"] = -log_mean_exp(log_px - beta * log_ratio).mean()
        elif by_dim is not None and self.free_bits:
            terms["loss"] = reconstruction + beta * by_dim.clamp(min=self.free_bits).sum()
        else:
            terms["loss"] = reconstruction + beta * kl
        return terms

    @torch.no_grad()
    def iw_bound(self, x: Tensor, k: int = 1, y: Tensor | None = None) -> Tensor:
        """Importance-weighted lower bound on log p(x) from k samples, nats (B,); the ELBO for k = 1.

        For a standard prior the ELBO has its KL in closed form. More samples weigh z by p(x, z) / q(z | x) (Burda et
        al. 2015, equation 8).
        """
        rows = max(min(ROWS, VALUES // self.spec.size), 1)
        if len(x) > rows:
            parts = zip(x.split(rows), [None] * len(x) if y is None else y.split(rows), strict=False)
            return torch.cat([self.iw_bound(some, k, labels) for some, labels in parts])
        mean, log_std = self.posterior(x, y)
        if k == 1 and self.prior is None:
            log_px, _ = self.sample_posterior_terms(x, y, mean, log_std, 1)
            return log_px[0] - kl_to_standard(mean, log_std).sum(1)
        chunk, weights = rows // len(x), []
        for done in range(0, k, chunk):
            log_px, log_ratio = self.sample_posterior_terms(x, y, mean, log_std, min(chunk, k - done))
            weights.append(log_px - log_ratio)
        return log_mean_exp(torch.cat(weights))

    def likelihoods(self, x: Tensor, y: Tensor | None = None, *, k: int = 1) -> tuple[Likelihood, ...]:
        """The ELBO for k = 1, else the importance-weighted bound."""
        name = "nelbo" if k == 1 else "nll_iw"
        return (Likelihood(self.iw_bound(x, k, y), self.likelihood_kind, exact=False, name=name),)

    def configure_optimizers(self) -> Any:
        """One optimizer; the learned prior and variance have faster groups, without weight decay.

        Decay would pull the log standard deviation towards 0, which has no special meaning.
        """
        assert self.optimizer_config is not None
        full = self.hparams["full_lr_size"] or self.spec.size
        lr = self.optimizer_config.lr * min(1.0, math.sqrt(full / self.spec.size))
        faster: list[dict[str, Any]] = [
            {"params": list(module.parameters()), "lr": speed * lr, "weight_decay": 0.0}
            for module, speed in ((self.likelihood, VARIANCE_SPEED), (self.prior, PRIOR_SPEED))
            if module is not None and any(True for _ in module.parameters())
        ]
        in_groups = {parameter for group in faster for parameter in group["params"]}
        networks = [p for p in self.parameters() if p not in in_groups]
        return self.build_optimizer(networks, groups=faster, lr=lr)

    def hidden_layers(self) -> list[nn.Module]:
        """Encoder and decoder."""
        return [self.encoder, self.decoder]

    # -- abilities --------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: bool = False,
    ) -> Tensor:
        """Decode draws from the prior: the mean of p(x | z), or with `noise` a draw from it.

        Raises:
            DataError: the model is unconditional, or the condition is not n class labels.
        """
        y, values = self.resolve_labels(n, condition, generator), fork(generator, "values")
        z = self.sample_prior(n, generator)
        if not noise:
            return self.decode(z, y)
        return self._to_data(self.likelihood.sample(self.params(z, y), values))

    @torch.no_grad()
    def encode(self, x: Tensor, y: Tensor | None = None, *, sample: bool = False) -> Tensor:
        """The mean of q(z | x), or with `sample` a draw from it; (B, latent_dim)."""
        mean, log_std = self.posterior(x, y)
        return mean + log_std.exp() * torch.randn_like(mean) if sample else mean

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x | z)."""
        return self._to_data(self.likelihood.mean(self.params(z, y)))

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x | z) at the mean of q(z | x)."""
        return self.decode(self.encode(x, y), y)

    def interpolate(
        self,
        n: int,
        steps: int,
        *,
        generator: torch.Generator | None = None,
        between: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """n interpolations between draws from the prior, or between data, (n, steps, *shape), of one label each.

        Under the standard prior the path is cos t z0 + sin t z1, which is distributed as the prior at every t. Between
        data, the direction of the latent turns; under another prior, paths are straight.

        Args:
            n: number of interpolations.
            steps: of each, with both ends.
            generator: source of randomness.
            between: the first ends, then the last ones, (2 n, *shape).
            condition: class labels (n,) of a conditional model; None draws them.
        """
        labels = self.resolve_labels(n, condition, generator)
        ends = self.sample_prior(2 * n, generator) if between is None else self.encode(between, labels.repeat(2))
        t, (start, end) = torch.linspace(0, 1, steps, device=ends.device)[:, None], ends[:, None].chunk(2)
        if self.mixture is not None:
            paths = torch.lerp(start, end, t)
        elif between is None:
            paths = (t * math.pi / 2).cos() * start + (t * math.pi / 2).sin() * end
        else:
            paths = slerp(start, end, t)  # (n, steps, latent_dim)
        return self.decode(paths.flatten(0, 1), labels.repeat_interleave(steps)).unflatten(0, (n, steps))

    def export_module(self) -> ExportableSampler:
        """Random numbers for the prior, and labels if conditional -> the mean of p(x | z)."""
        inputs, mixture = [InputSpec("noise", "normal", (self.latent_dim,))], self.mixture
        if mixture is not None:
            inputs.insert(0, InputSpec("choice", "uniform"))
        if self.conditional:
            inputs.append(InputSpec("label", "class", high=self.n_labels, shares=tuple(self.class_shares)))

        def drawn(*given: Tensor) -> Tensor:
            z = given[0] if mixture is None else mixture.transform(*given[:2])
            return self.decode(z, given[-1] if self.conditional else None)

        prior = [mixture] if mixture is not None else []
        return ExportableSampler(drawn, inputs, *prior, self.decoder, self.likelihood, self.standardize)

    def charts(self) -> dict[str, list[str]]:
        """Loss, and the two terms of the bound."""
        return {
            "loss": ["train/loss", "val/loss"],
            "reconstruction": ["train/reconstruction", "val/reconstruction"],
            "KL divergence": ["train/kl", "val/kl"],
            "ELBO": ["train/elbo", "val/elbo"],
        }

    def sample_prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws from the prior, (n, latent_dim)."""
        mixture = self.mixture
        if mixture is not None:
            return mixture.sample(n, generator)
        return self.randn(n, self.latent_dim, generator=generator)

    @property
    def mixture(self) -> LearnedMixture | GaussianMixture | None:
        """The mixture that samples come from; None for N(0, I)."""
        return self.prior if self.density is None else self.fitted_density()

    def latents_to_fit(self, batch: Batch) -> Tensor:
        """Draws from the posterior, (B, latent_dim)."""
        return self.encode(*batch, sample=True)

    def _to_data(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1) if isinstance(self.spec.x, Image) else self.standardize.inverse(x)


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """Logarithm of the mean weight over the first dimension."""
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))
