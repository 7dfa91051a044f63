"""Variational autoencoders: latent-variable models trained on a lower bound of their likelihood."""

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ConfigError, ZooError
from zoo.core.registry import register
from zoo.core.signature import Component, Count, NonNegative, PositiveInt
from zoo.core.space import PixelSpace, Space
from zoo.core.spaces import Image, Series, Vector, Video
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.models.latent_density import LatentDensity
from zoo.models.results import Likelihood
from zoo.nn.blocks.standardize import Standardize
from zoo.nn.distributions.likelihoods import Likelihood as Observation
from zoo.nn.distributions.mixtures import ClassMixtures, GaussianMixture
from zoo.nn.distributions.posteriors import GaussianPosterior, Posterior
from zoo.nn.distributions.priors import Prior
from zoo.nn.losses.importance_weighted import log_mean_exp, square_weights_of_gradient
from zoo.nn.losses.latent_regularizers import NoRegularizer, Regularizer
from zoo.nn.networks.components import Decoder, Encoder
from zoo.nn.optim.components import Optimizer
from zoo.nn.optim.lr_schedule import lr_factor
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec
from zoo.nn.samplers.noise import fork

VARIANCE_SPEED = 3  # so does the learned variance: ten times over-fits the digits, equal steps lag on faces
ROWS = 4096  # largest decoder batch when a bound is evaluated,
VALUES = 2**21  # and the most numbers in its output: 8 MB, and about 40 times as much in a convolutional decoder


@register("model", "vae")
class VAE(LatentDensity, Model):
    """Variational autoencoder: ELBO or importance-weighted bound, any likelihood, optional class labels.

    p(x, z) = p(z) p(x | decoder(z)), and the encoder predicts the parameters of q(z | x). All terms are nats per
    sample, summed over dimensions. Prior, posterior, likelihood and regularizer are independent choices.

    Args:
        spec: what the data looks like.
        latent_dim: size of z.
        likelihood: p(x | z). A Gaussian with one learned variance suits every kind of data. Bernoulli suits binary
            images; on grey images it is a soft cross-entropy and not a likelihood.
        prior: p(z). One that is trained has a Monte Carlo estimate of the KL in place of the closed form.
        posterior: family of q(z | x).
        regularizer: penalty on the latents beside the KL; the loss is then not a bound.
        objective: "elbo" (Kingma & Welling 2013, equation 7), or "iwae", the logarithm of the mean importance weight
            (Burda et al. 2015, equation 8). They are equal for one sample. "dreg" has the value of "iwae", and an
            estimate of its gradient with less variance (Tucker et al. 2018, arXiv:1810.04152, equation 8).
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
        ConfigError: components that do not fit each other, or `free_bits` where the KL is not a sum over dimensions.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image, Vector, Series, Video)
    paper = "Kingma & Welling 2013 (arXiv:1312.6114)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent_dim: PositiveInt = 16,
        likelihood: Annotated[str | dict[str, Any], Component("likelihood")] = "gaussian",
        prior: Annotated[str | dict[str, Any], Component("prior")] = "standard",
        posterior: Annotated[str | dict[str, Any], Component("posterior")] = "gaussian",
        regularizer: Annotated[str | dict[str, Any], Component("regularizer")] = "none",
        objective: Literal["elbo", "iwae", "dreg"] = "elbo",
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
        family: Posterior = self.build_component("posterior", "posterior", latent_dim)
        self.posterior_family, self.head = family, nn.Linear(feature_dim + self.n_labels, family.n_params)
        size = latent_dim + self.n_labels
        self.decoder = self.build_component("decoder", "decoder", size, self.likelihood.params_shape)
        self.prior: Prior = self.build_component("prior", "prior", latent_dim, family, spec)
        if conditional:
            self.prior.depend_on_class(self.n_labels)
        self.regularizer: Regularizer = self.build_component(
            "regularizer", "regularizer", latent_dim, family, self.prior
        )
        self.closed_kl = family.closed_kl and self.prior.standard
        if not family.normal:
            self.lacks("posterior")
        if free_bits and not (self.closed_kl and objective == "elbo"):
            raise ConfigError(
                f"model.free_bits={free_bits}: the KL must be a sum over latent dimensions. "
                f"Choose model.objective=elbo with model/prior=standard, or model.free_bits=0."
            )
        bound = beta == 1 and not kl_warmup_steps and isinstance(self.regularizer, NoRegularizer)
        if objective == "dreg" and not (bound and family.normal):
            raise ConfigError(
                "model.objective=dreg: needs model.beta=1 without warm-up, model/posterior=gaussian and "
                "model/regularizer=none. Choose them, or model.objective=iwae."
            )
        if conditional and self.prior.encodes:
            raise ConfigError("model.conditional=true: pseudo-inputs have no labels. Choose another model/prior.")

    @property
    def density(self) -> GaussianMixture | ClassMixtures | None:
        """The mixture of a fitted prior, which `LatentDensity` fits."""
        return self.prior.density

    # -- the distributions -----------------------------------------------------------------------------------

    def posterior_params(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data -> the parameters of q(z | x), (B, n_params)."""
        return self.encoded(self.standardize(x), y)

    def encoded(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The same for standardised data."""
        return self.head(self._labelled(F.silu(self.encoder(x)), y))

    def posterior(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of a Gaussian q(z | x), each (B, latent_dim)."""
        assert isinstance(self.posterior_family, GaussianPosterior)
        return self.posterior_family.mean_and_log_std(self.posterior_params(x, y))

    def params(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, latent_dim) -> the parameters of p(x | z)."""
        return self.decoder(self._labelled(z, y))

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), (..., latent_dim) -> (...)."""
        return self.prior.log_prob(z, self.encoded)

    def _labelled(self, h: Tensor, y: Tensor | None) -> Tensor:
        if not self.conditional:
            return h
        if y is None:
            raise ZooError("y=None: the model is conditional. Pass the class labels of the data.")
        return torch.cat([h, F.one_hot(y, self.n_labels).to(h.dtype)], dim=1)

    # -- the objective ---------------------------------------------------------------------------------------

    def sample_posterior_terms(
        self, x: Tensor, y: Tensor | None, params: Tensor, k: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """k latents for each x: log p(x | z) and log q(z | x) - log p(z), both (k, B), and z (k, B, latent_dim)."""
        z, log_q = self.posterior_family.sample(params, k)
        if self.objective == "dreg":  # the gradient of q is that through z
            log_q = self.posterior_family.log_prob(z, params.detach())
        if k > 1:
            x = x.repeat(k, *[1] * (x.dim() - 1))
            y = None if y is None else y.repeat(k, *[1] * (y.dim() - 1))
        log_px = self.likelihood.log_prob(self.params(z.flatten(0, 1), y), self.standardize(x))
        log_px = (log_px + self.standardize.log_abs_det).unflatten(0, (k, -1))
        return log_px, log_q - self.log_prior(z), z

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Negative bound plus penalty; `reconstruction` = -E log p(x | z), `kl`, `elbo` = -(reconstruction + kl)."""
        x, y = batch
        params = self.posterior_params(x, y)
        log_px, log_ratio, z = self.sample_posterior_terms(x, y, params, self.num_samples)
        by_dim = self.posterior_family.kl(params).mean(0) if self.closed_kl else None
        reconstruction = -log_px.mean()
        kl = log_ratio.mean() if by_dim is None else by_dim.sum()
        terms = {"reconstruction": reconstruction, "kl": kl, "elbo": -reconstruction - kl}
        beta = self.beta * lr_factor(self.step, 0, warmup=self.kl_warmup_steps) if self.training else self.beta
        if self.objective != "elbo" and self.num_samples > 1:
            log_weights = log_px - beta * log_ratio
            if self.objective == "dreg":
                square_weights_of_gradient(z, log_weights)
            terms["loss"] = -log_mean_exp(log_weights).mean()
        elif by_dim is not None and self.free_bits:
            terms["loss"] = reconstruction + beta * by_dim.clamp(min=self.free_bits).sum()
        else:
            terms["loss"] = reconstruction + beta * kl
        penalties = self.regularizer(z[0], params)
        terms["loss"] = terms["loss"] + penalties.pop("penalty", 0.0)
        return terms | penalties

    @torch.no_grad()
    def iw_bound(self, x: Tensor, k: int = 1, y: Tensor | None = None) -> Tensor:
        """Importance-weighted lower bound on log p(x) from k samples, nats (B,); the ELBO for k = 1.

        The ELBO has its KL in closed form, where there is one. More samples weigh z by p(x, z) / q(z | x) (Burda et al.
        2015, equation 8).
        """
        rows = max(min(ROWS, VALUES // self.spec.size), 1)
        if len(x) > rows:
            parts = zip(x.split(rows), [None] * len(x) if y is None else y.split(rows), strict=False)
            return torch.cat([self.iw_bound(some, k, labels) for some, labels in parts])
        params = self.posterior_params(x, y)
        if k == 1 and self.closed_kl:
            log_px, *_ = self.sample_posterior_terms(x, y, params, 1)
            return log_px[0] - self.posterior_family.kl(params).sum(1)
        chunk, weights = rows // len(x), []
        for done in range(0, k, chunk):
            log_px, log_ratio, _ = self.sample_posterior_terms(x, y, params, min(chunk, k - done))
            weights.append(log_px - log_ratio)
        return log_mean_exp(torch.cat(weights))

    def likelihoods(self, x: Tensor, y: Tensor | None = None, *, k: int = 1) -> tuple[Likelihood, ...]:
        """The ELBO for k = 1, else the importance-weighted bound."""
        name = "nelbo" if k == 1 else "nll_iw"
        return (Likelihood(self.iw_bound(x, k, y), self.likelihood_kind, exact=False, name=name),)

    @torch.no_grad()
    def draw_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `SupportsLatentDraws`."""
        log_px, log_ratio, z = self.sample_posterior_terms(x, None, self.posterior_params(x), 1)
        return z[0], (log_px - log_ratio - self.log_prior(z))[0]

    def on_fit_start(self) -> None:
        """Fit the standardisation; a regularizer may need the size of the training set."""
        super().on_fit_start()
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, DataModule):
            self.regularizer.set_size(len(data.train[0]))

    def configure_optimizers(self) -> Any:
        """One optimizer; prior, variance and regularizer have further groups, without weight decay.

        Decay would pull the log standard deviation towards 0, which has no special meaning.
        """
        assert self.optimizer_config is not None
        full = self.hparams["full_lr_size"] or self.spec.size
        lr = self.optimizer_config.lr * min(1.0, math.sqrt(full / self.spec.size))
        own: list[dict[str, Any]] = [
            {"params": list(module.parameters()), "lr": rate, "weight_decay": 0.0}
            for module, rate in (
                (self.likelihood, VARIANCE_SPEED * lr),
                (self.prior, self.prior.speed * lr),
                (self.regularizer, self.regularizer.lr or lr),
            )
            if any(True for _ in module.parameters())
        ]
        in_groups = {parameter for group in own for parameter in group["params"]}
        networks = [p for p in self.parameters() if p not in in_groups]
        return self.build_optimizer(networks, groups=own, lr=lr)

    def hidden_layers(self) -> list[nn.Module]:
        """Encoder and decoder."""
        return [self.encoder, self.decoder]

    # -- abilities --------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None, noise: bool = False
    ) -> Tensor:
        """Decode draws from the prior: the mean of p(x | z), or with `noise` a draw from it.

        Raises:
            DataError: the model is unconditional, or the condition is not n class labels.
        """
        y, values = self.resolve_labels(n, condition, generator), fork(generator, "values")
        z = self.sample_prior(n, generator, y)
        if not noise:
            return self.decode(z, y)
        return self._to_data(self.likelihood.sample(self.params(z, y), values))

    @torch.no_grad()
    def encode(self, x: Tensor, y: Tensor | None = None, *, sample: bool = False) -> Tensor:
        """The mean of q(z | x), or with `sample` a draw from it; (B, latent_dim)."""
        params = self.posterior_params(x, y)
        return self.posterior_family.sample(params, 1)[0][0] if sample else self.posterior_family.mean(params)

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

        Args:
            n: number of interpolations.
            steps: of each, with both ends.
            generator: source of randomness.
            between: the first ends, then the last ones, (2 n, *shape).
            condition: class labels (n,) of a conditional model; None draws them.
        """
        labels = self.resolve_labels(n, condition, generator)
        twice = labels.repeat(2)
        ends = self.sample_prior(2 * n, generator, twice) if between is None else self.encode(between, twice)
        t, (start, end) = torch.linspace(0, 1, steps, device=ends.device)[:, None], ends[:, None].chunk(2)
        paths = self.prior.path(start, end, t, drawn=between is None)  # (n, steps, latent_dim)
        return self.decode(paths.flatten(0, 1), labels.repeat_interleave(steps)).unflatten(0, (n, steps))

    def export_module(self) -> ExportableSampler:
        """Random numbers for the prior, and labels if conditional -> the mean of p(x | z)."""
        inputs = list(self.prior.inputs)
        if self.conditional:
            inputs.append(InputSpec("label", "class", high=self.n_labels, shares=tuple(self.class_shares)))

        def drawn(*given: Tensor) -> Tensor:
            z = self.prior.transform(self.encoded, *given[: len(self.prior.inputs) + self.prior.by_class])
            return self.decode(z, given[-1] if self.conditional else None)

        used = [self.encoder, self.head] if self.prior.encodes else []
        return ExportableSampler(drawn, inputs, self.prior, *used, self.decoder, self.likelihood, self.standardize)

    def charts(self) -> dict[str, list[str]]:
        """Loss, and the two terms of the bound."""
        names = {"loss": "loss", "reconstruction": "reconstruction", "KL divergence": "kl", "ELBO": "elbo"}
        return {title: [f"train/{term}", f"val/{term}"] for title, term in names.items()}

    def sample_prior(self, n: int, generator: torch.Generator | None = None, y: Tensor | None = None) -> Tensor:
        """Draws from the prior, (n, latent_dim), of labels (n,) if it depends on the class; None draws them."""
        if self.prior.by_class and y is None:
            y = self.resolve_labels(n, None, fork(generator, "labels"))
        return self.prior.sample(n, generator, self.encoded, self.head.weight, y)

    def latents_to_fit(self, batch: Batch) -> Tensor:
        """Draws from the posterior, (B, latent_dim), with the label as a last number if the prior depends on it."""
        z = self.encode(*batch, sample=True)
        return torch.cat([z, batch.y[:, None].to(z)], 1) if self.prior.by_class else z

    def _to_data(self, x: Tensor) -> Tensor:
        pixels = isinstance(self.spec.x, PixelSpace) and self.spec.x.levels
        return x.clamp(0, 1) if pixels else self.standardize.inverse(x)
