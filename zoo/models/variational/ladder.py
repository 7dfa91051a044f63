"""Ladder variational autoencoder: a chain of latents, whose posterior corrects the prior from above."""

from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import Component, Count, NonNegative, PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.models.results import Likelihood
from zoo.nn.blocks.standardize import Standardize
from zoo.nn.distributions.likelihoods import Likelihood as Observation
from zoo.nn.distributions.likelihoods import at_least_float32, soft_clamp
from zoo.nn.distributions.normal import log_normal
from zoo.nn.losses.importance_weighted import log_mean_exp
from zoo.nn.networks.components import Decoder, Encoder
from zoo.nn.networks.mlp import mlp
from zoo.nn.optim.components import Optimizer
from zoo.nn.optim.lr_schedule import lr_factor
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec
from zoo.nn.samplers.noise import fork

LOG_STD_BOUND = 6.0  # |log std|
ROWS = 4096  # largest decoder batch when a bound is evaluated,
VALUES = 2**21  # and the most numbers in its output

Normal = tuple[Tensor, Tensor]  # mean and log standard deviation


@register("model", "ladder_vae")
class LadderVAE(Model):
    """Ladder variational autoencoder (Sonderby et al. 2016, arXiv:1602.02282).

    p(x, z) = p(x | z_1) p(z_1 | z_2) ... p(z_L), where p(z_L) = N(0, I). Features upwards from x predict a Gaussian for
    every level. On the way down, q(z_l | z_(l + 1), x) is the product of this Gaussian and the prior (equations 17 to
    19). With one level it is `vae`. Terms are nats per sample.

    Args:
        spec: what the data looks like.
        latent_dims: sizes of z_1, which the decoder reads, up to z_L.
        likelihood: p(x | z_1).
        beta: weight of the KL; the loss is a bound for 1.
        kl_warmup_steps: batches over which beta rises linearly from 0, in training only. Without it, upper levels
            often stay unused.
        width: units of the hidden layer between levels.
        optimizer: with its learning rate and schedule.
        feature_dim: size of the features of each level.
        encoder: data -> features of the first level.
        decoder: z_1 -> parameters of the likelihood.

    Raises:
        ConfigError: no levels.
    """

    paper = "Sonderby et al. 2016 (arXiv:1602.02282)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        latent_dims: Annotated[tuple[int, ...], Gt(0)] = (16, 8),
        likelihood: Annotated[str | dict[str, Any], Component("likelihood")] = "gaussian",
        beta: NonNegative = 1.0,
        kl_warmup_steps: Count = 0,
        width: PositiveInt = 128,
        optimizer: Optimizer = "adamw",
        feature_dim: PositiveInt = 128,
        encoder: Encoder = "auto",
        decoder: Decoder = "auto",
    ) -> None:
        super().__init__(spec)
        if not latent_dims:
            raise ConfigError("model.latent_dims=[]: no levels. Choose at least one size, such as [8].")
        self.sizes, self.beta, self.kl_warmup_steps = list(latent_dims), beta, kl_warmup_steps
        self.standardize = Standardize(spec)
        self.likelihood: Observation = self.build_component("likelihood", "likelihood", spec)
        self.likelihood_kind = self.likelihood.kind
        if self.likelihood_kind == "none":
            self.lacks("likelihood")
        self.encoder = self.build_component("encoder", "encoder", spec.shape, feature_dim)
        self.decoder = self.build_component("decoder", "decoder", self.sizes[0], self.likelihood.params_shape)

        def network(n_in: int, n_out: int) -> nn.Module:
            return mlp([n_in, width, n_out], "silu", "none", spectral_norm=False)

        self.up = nn.ModuleList(network(feature_dim, feature_dim) for _ in self.sizes[1:])  # features of level l + 1
        self.heads = nn.ModuleList(nn.Linear(feature_dim, 2 * size) for size in self.sizes)  # of each level, from x
        pairs = zip(self.sizes[1:], self.sizes[:-1], strict=True)
        self.down = nn.ModuleList(network(above, 2 * below) for above, below in pairs)  # p(z_l | z_(l + 1))

    # -- the distributions ---------------------------------------------------------------------------------------

    def evidence(self, x: Tensor) -> list[Normal]:
        """Data -> a Gaussian for each level, the first one first."""
        found, h = [], self.encoder(self.standardize(x))
        for level, head in enumerate(self.heads):
            h = self.up[level - 1](F.silu(h)) if level else h
            found.append(as_normal(head(F.silu(h))))
        return found

    def prior_of(self, level: int, above: Tensor | None, like: Tensor) -> Normal:
        """p(z_level | z above), or N(0, I) of the shape of `like` for the top."""
        return (torch.zeros_like(like),) * 2 if above is None else as_normal(self.down[level](above))

    def infer(self, x: Tensor, k: int, noise: bool = True) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """From the top level down to the first: k draws (k * B, size), their log q - log p, and KLs, both (k * B,).

        Without `noise`, draws are means.
        """
        drawn: list[Tensor] = []
        ratios, divergences, above = [], [], None
        for level, (mean, log_std) in reversed(list(enumerate(self.evidence(x)))):
            mean, log_std = mean.repeat(k, 1), log_std.repeat(k, 1)
            prior = self.prior_of(level, above, mean)
            mean, log_std = (mean, log_std) if above is None else product((mean, log_std), prior)
            above = mean + log_std.exp() * torch.randn_like(mean) if noise else mean
            drawn.append(above)
            ratios.append(log_normal(above, mean, log_std) - log_normal(above, *prior))
            divergences.append(kl((mean, log_std), prior).sum(1))
        return drawn, ratios, divergences

    def log_px(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z_1) of data (B, *shape) and latents (k * B, size), nats (k * B,)."""
        x = self.standardize(x).repeat(len(z) // len(x), *[1] * (x.dim() - 1))
        return self.likelihood.log_prob(self.decoder(z), x) + self.standardize.log_abs_det

    # -- the objective -------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Negative bound; `reconstruction`, `kl`, `elbo`, and the KL of each level from the first, `kl_1` ..."""
        x, _ = batch
        drawn, _, divergences = self.infer(x, 1)
        reconstruction, levels = -self.log_px(x, drawn[-1]).mean(), [d.mean() for d in reversed(divergences)]
        total = torch.stack(levels).sum()
        beta = self.beta * lr_factor(self.step, 0, warmup=self.kl_warmup_steps) if self.training else self.beta
        terms = {"loss": reconstruction + beta * total, "reconstruction": reconstruction, "kl": total}
        terms["elbo"] = -reconstruction - total
        return terms | {f"kl_{number}": value for number, value in enumerate(levels, 1)}

    @torch.no_grad()
    def iw_bound(self, x: Tensor, k: int = 1) -> Tensor:
        """Importance-weighted lower bound on log p(x) from k samples, nats (B,); for k = 1 the ELBO."""
        rows = max(min(ROWS, VALUES // self.spec.size), 1)
        if len(x) > rows:
            return torch.cat([self.iw_bound(some, k) for some in x.split(rows)])
        chunk, weights = rows // len(x), []
        for done in range(0, k, chunk):
            drawn, ratios, divergences = self.infer(x, min(chunk, k - done))
            gap = sum(divergences if k == 1 else ratios)
            weights.append((self.log_px(x, drawn[-1]) - gap).unflatten(0, (-1, len(x))))
        return log_mean_exp(torch.cat(weights))

    def likelihoods(self, x: Tensor, y: Tensor | None = None, *, k: int = 1) -> tuple[Likelihood, ...]:
        """The ELBO for k = 1, else the importance-weighted bound."""
        name = "nelbo" if k == 1 else "nll_iw"
        return (Likelihood(self.iw_bound(x, k), self.likelihood_kind, exact=False, name=name),)

    def hidden_layers(self) -> list[nn.Module]:
        """All networks between data and latents."""
        return [self.encoder, self.decoder, self.up, self.down]

    # -- abilities -----------------------------------------------------------------------------------------------

    def descend(self, noise: Tensor) -> Tensor:
        """Standard normal numbers (B, sum of sizes), the top level first, -> latents of all levels in this order."""
        drawn: list[Tensor] = []
        levels = list(reversed(range(len(self.sizes))))
        for level, part in zip(levels, noise.split([self.sizes[n] for n in levels], 1), strict=True):
            mean, log_std = self.prior_of(level, drawn[-1] if drawn else None, part)
            drawn.append(mean + log_std.exp() * part)
        return torch.cat(drawn, 1)

    @torch.no_grad()
    def sample_prior(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws of all levels, the top first, (n, sum of sizes)."""
        return self.descend(self.randn(n, sum(self.sizes), generator=generator).to(next(self.heads.parameters())))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: bool = False,
    ) -> Tensor:
        """Decode draws from the prior: the mean of p(x | z_1), or with `noise` a draw from it."""
        self.check_condition(condition)
        values = fork(generator, "values")
        z = self.sample_prior(n, generator)
        return self._to_data(self.likelihood.sample(self._params(z), values)) if noise else self.decode(z)

    @torch.no_grad()
    def encode(self, x: Tensor, y: Tensor | None = None, *, sample: bool = False) -> Tensor:
        """Means of all levels, from the top down, each given the one above, or with `sample` draws: (B, all sizes)."""
        return torch.cat(self.infer(x, 1, noise=sample)[0], 1)

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x | z_1); upper levels have no further effect."""
        return self._to_data(self.likelihood.mean(self._params(z)))

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x | z_1) at the mean of q."""
        return self.decode(self.encode(x))

    def interpolate(
        self, n: int, steps: int, *, generator: torch.Generator | None = None, between: Tensor | None = None
    ) -> Tensor:
        """n straight lines between latents of draws, or of data (2 n, *shape): (n, steps, *shape)."""
        ends = self.sample_prior(2 * n, generator) if between is None else self.encode(between)
        t = torch.linspace(0, 1, steps, device=ends.device)[:, None]
        paths = torch.lerp(ends[:n, None], ends[n:, None], t)  # (n, steps, sum of sizes)
        return self.decode(paths.flatten(0, 1)).unflatten(0, (n, steps))

    def export_module(self) -> ExportableSampler:
        """Random numbers of all levels -> the mean of p(x | z_1)."""
        used = self.down, self.decoder, self.likelihood, self.standardize
        return ExportableSampler(
            lambda noise: self.decode(self.descend(noise)), [InputSpec("noise", "normal", (sum(self.sizes),))], *used
        )

    def charts(self) -> dict[str, list[str]]:
        """Loss, the two terms of the bound, and the KL of every level."""
        names = {"loss": "loss", "reconstruction": "reconstruction", "KL divergence": "kl", "ELBO": "elbo"}
        levels = [f"train/kl_{number + 1}" for number in range(len(self.sizes))]
        return {title: [f"train/{term}", f"val/{term}"] for title, term in names.items()} | {"KL by level": levels}

    def _params(self, z: Tensor) -> Tensor:
        return self.decoder(z[:, -self.sizes[0] :])

    def _to_data(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1) if isinstance(self.spec.x, Image) else self.standardize.inverse(x)


def as_normal(raw: Tensor) -> Normal:
    """Output of a network (B, 2 * size) -> mean and log standard deviation, each (B, size)."""
    mean, log_std = at_least_float32(raw).chunk(2, dim=1)
    return mean, soft_clamp(log_std, LOG_STD_BOUND)


def product(one: Normal, two: Normal) -> Normal:
    """The Gaussian proportional to the product of two: precisions add up, and weight the means."""
    log_precision = torch.logaddexp(-2 * one[1], -2 * two[1])
    share = torch.exp(-2 * one[1] - log_precision)
    return share * one[0] + (1 - share) * two[0], -0.5 * log_precision


def kl(q: Normal, p: Normal) -> Tensor:
    """KL between Gaussians per dimension, nats."""
    scaled = (q[0] - p[0]) * torch.exp(-p[1])
    return 0.5 * (scaled.square() + torch.expm1(2 * (q[1] - p[1]))) - (q[1] - p[1])
