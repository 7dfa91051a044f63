"""Diffusion and flow matching: a network removes noise, and a sampler repeats it from pure noise to data."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from zoo.core import registry
from zoo.core.errors import ConfigError, ZooError
from zoo.core.registry import register
from zoo.core.signature import Component, Fraction, NonNegative, PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import Likelihood, Visual
from zoo.models.base import Model
from zoo.nn.blocks.standardize import Standardize
from zoo.nn.diffusion.coupling import Coupling
from zoo.nn.diffusion.guidance import clipped, guided
from zoo.nn.diffusion.likelihood import EXACT_DIVERGENCE, ode_log_prob, prior_scale, variational_bound
from zoo.nn.diffusion.path import Path, Point
from zoo.nn.diffusion.sampler import Denoise, Sampler
from zoo.nn.diffusion.target import Target, coefficients, input_scale, solve
from zoo.nn.diffusion.times import Times, stratified
from zoo.nn.diffusion.weighting import Weighting
from zoo.nn.networks.components import Denoiser
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec

SEED = 50_000_000  # of times and noise outside training
MAX_LOG_SNR = 20.0  # that a network sees
MAX_LEVELS = 32  # of images, for one logit per level
BINS = 4  # noise levels whose losses are logged apart
ENCODED_LOG_SNR = 9.0  # of data that the ODE starts from, without noise: s / a = .011
BOUND_DRAWS = 8  # times per sample in the variational bound


@register("model", "diffusion")
class Diffusion(Model):
    """Diffusion or flow matching: any path, target, weighting, distribution of times, coupling, sampler and network.

    z = a(t) x + s(t) e goes from data (t = 0) to noise (t = 1). The network predicts a combination of x and e from z
    and the log-SNR. Data are standardised by one mean and deviation. `loss` is a weighted squared error per value;
    with weighting=elbo it is in nats.

    Args:
        spec: what the data looks like.
        path: a(t) and s(t).
        target: what the network predicts; see `zoo.nn.diffusion.target`. "levels" predicts a probability of each level
            of an image; the value's own Gaussian evidence is added exactly.
        weighting: of the loss over noise levels.
        times: distribution of noise levels in training.
        coupling: which noise goes with which sample.
        denoiser: the network.
        sampler: default of `sample`.
        conditional: condition on class labels; None does so if the data have labels.
        label_dropout: share of a batch that is trained without its label, for guidance.
        guidance: default weight of classifier-free guidance; 1 is off.
        clip: clip the estimates of x to the range of images while sampling.
        optimizer: with its learning rate and schedule.

    Raises:
        ConfigError: a target that the data do not have.
    """

    paper = "Ho et al. 2020 (arXiv:2006.11239); Lipman et al. 2022 (arXiv:2210.02747)"
    likelihood_kind = "continuous"  # of `log_prob`

    def __init__(
        self,
        spec: DataSpec,
        *,
        path: Annotated[str | dict[str, Any], Component("path")] = "linear",
        target: Literal["x", "eps", "velocity", "v", "score", "edm", "levels"] = "velocity",
        weighting: Annotated[str | dict[str, Any], Component("weighting")] = "from_target",
        times: Annotated[str | dict[str, Any], Component("times")] = "uniform",
        coupling: Annotated[str | dict[str, Any], Component("coupling")] = "independent",
        denoiser: Denoiser = "auto",
        sampler: Annotated[str | dict[str, Any], Component("sampler")] = "heun",
        conditional: bool | None = None,
        label_dropout: Fraction = 0.1,
        guidance: NonNegative = 1.0,
        clip: bool = False,
        optimizer: Optimizer = "adam",
    ) -> None:
        super().__init__(spec)
        self.conditional = bool(spec.n_classes) if conditional is None else conditional
        n_levels = spec.x.levels if isinstance(spec.x, Image) else 0
        if target == "levels" and not 0 < n_levels <= MAX_LEVELS:
            raise ConfigError(
                f"model.target=levels: {spec} does not have 2 to {MAX_LEVELS} levels. Choose model.target=v."
            )
        self.path: Path = self.build_component("path", "path")
        if target in ("eps", "score") and self.path.number(self.path.last).a < 1e-9:
            raise ConfigError(
                f"model.target={target}: undefined where the path ends without signal. Choose model.target=velocity, "
                "or model/path=vp_cosine."
            )
        self.target: Target = "x" if target == "levels" else target
        self.weighting: Weighting = self.build_component("weighting", "weighting")
        self.times: Times = self.build_component("times", "times")
        self.coupling: Coupling = self.build_component("coupling", "coupling")
        self.sampler: Sampler = self.build_component("sampler", "sampler")
        if self.sampler.random or self.sampler.registered_name == "adaptive":
            self.lacks("export")  # noise on the way, or a number of steps that depends on the data
        if isinstance(spec.x, Image):
            self.lacks("log_prob")  # a density of what is a grid of levels; `bound` is about these
        self.standardize = Standardize(spec, images=True)
        n_out = n_levels if target == "levels" else 1
        given = spec.shape, n_out, spec.n_classes if self.conditional else 0
        self.denoiser: nn.Module = self.build_component("denoiser", "denoiser", *given)

    # -- the network ---------------------------------------------------------------------------------------------

    def predict(self, z: Tensor, at: Point, y: Tensor | None) -> Tensor:
        """The network's prediction of the target at z (B, *shape), at one point of the path for each row."""
        noise = (at.log_snr.clamp(-MAX_LOG_SNR, MAX_LOG_SNR) / 4).flatten().to(z.dtype)
        output = self.denoiser(z * input_scale(at).to(z.dtype), noise.expand(len(z)), y)
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        if self.hparams["target"] != "levels":
            return output
        logits = output.unflatten(1, (-1, z.shape[1]))  # (B, K, C, H, W)
        levels = self.level_values().to(z).view(1, -1, 1, 1, 1)
        a, s = (c.to(z.dtype)[:, None] for c in (at.a, at.s))
        evidence = -0.5 * ((z[:, None] - a * levels) / s.clamp(min=1e-4)).square()
        return ((logits + evidence).softmax(1) * levels).sum(1)

    def level_values(self) -> Tensor:
        """Levels of an image (K,), standardised."""
        assert isinstance(self.spec.x, Image)
        return self.standardize(torch.linspace(0, 1, self.spec.x.levels, device=self.device))

    def estimate(self, z: Tensor, t: Tensor | float, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Estimates of the data x and the noise e at z (B, *shape), at one time or times (B,)."""
        t = t if isinstance(t, Tensor) else torch.full((1,), t, dtype=torch.float64, device=z.device)
        at = self.path.at(t).like(z)
        output = self.predict(z, at, y)
        return solve(output, z, Point(*(c.to(output.dtype) for c in at)), self.target)

    # -- the objective -------------------------------------------------------------------------------------------

    def squared_errors(
        self, x: Tensor, y: Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Weighted squared error per value of each sample, and its time, both (B,).

        Args:
            x: standardised data (B, *shape).
            y: labels (B,); None trains without.
            generator: on the CPU, of times and noise; None draws on the device.
        """
        place = self.device if generator is None else torch.device("cpu")
        u = stratified(len(x), generator, place).to(self.device)
        noise = torch.randn(x.shape, generator=generator, device=place, dtype=x.dtype).to(self.device)
        noise = self.coupling.pair(x, noise, y if self.conditional else None)
        t, density = self.times.draw(u, self.path)
        at, wide = self.path.at(t), self.path.at(t).like(x)
        p, q = coefficients(self.target, wide)
        output = self.predict(wide.a * x + wide.s * noise, wide, self.dropped(y))
        error = (output - (p * x + q * noise)).square().flatten(1).mean(1)
        return self.weighting.loss_factor(self.target, at, density) * error, t

    def dropped(self, y: Tensor | None) -> Tensor | None:
        """Labels with the first rows of a batch replaced by "no class": batches are in random order."""
        if not self.conditional or y is None:
            return None
        share = self.hparams["label_dropout"]
        if not self.training or not share:
            return y
        rows = torch.arange(len(y), device=y.device) < max(1, round(share * len(y)))
        return y.masked_fill(rows, self.spec.n_classes)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean weighted squared error per value."""
        errors, _ = self.squared_errors(self.standardize(batch.x), batch.y)
        return {"loss": errors.mean()}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss, also by quarters of the noise levels, with the same times and noise at every validation."""
        generator = torch.Generator().manual_seed(SEED + batch_idx)
        errors, t = self.squared_errors(self.standardize(batch.x), batch.y, generator)
        self.log_epoch_mean({"val/loss": errors.mean()}, len(errors))
        share = (t - self.path.first) / (self.path.last - self.path.first)
        for index in range(BINS):
            inside = (share * BINS).long().clamp(max=BINS - 1) == index
            if number := int(inside.sum()):
                self.log_epoch_mean({f"val/loss_noise_{index + 1}_of_{BINS}": errors[inside].mean()}, number)

    def hidden_layers(self) -> list[nn.Module]:
        """The network."""
        return [self.denoiser]

    # -- sampling ------------------------------------------------------------------------------------------------

    def denoise_fn(self, y: Tensor | None, guidance: float | None = None, interval: Any = None) -> Denoise:
        """The denoiser for samplers: of classes y (B,), guided, clipped if set."""
        weight = self.hparams["guidance"] if guidance is None else guidance
        denoise: Denoise = partial(self.estimate, y=y)
        if self.conditional and y is not None:
            denoise = guided(denoise, partial(self.estimate, y=None), weight, self.path, interval)
        if self.hparams["clip"] and isinstance(self.spec.x, Image):
            low, high = self.standardize(torch.tensor([0.0, 1.0], device=self.device)).tolist()
            denoise = clipped(denoise, self.path, low, high)
        return denoise

    def choose_sampler(self, name: str | None, steps: int | None) -> Sampler:
        """The default sampler, or another one by name; with another number of steps if given."""
        config = self.hparams["sampler"] if name is None else name
        config = {"name": config} if isinstance(config, str) else dict(config)
        return registry.build("sampler", config | ({} if steps is None else {"steps": steps}), where="sampler")

    @torch.no_grad()
    def states(
        self, z: Tensor, denoise: Denoise, sampler: Sampler, plan: Sequence[Point], randn: Callable[[], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """States z and estimates of x, standardised, after each step of a sampler; see `Sampler.run`."""
        mode = self.training
        self.eval()
        try:
            yield from sampler.run(denoise, z, self.path, plan, randn)
        finally:
            self.train(mode)

    def prior_noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Noise of the last time, (n, *shape)."""
        return self.randn(n, *self.spec.shape, generator=generator)

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: PositiveInt | None = None,
        guidance: NonNegative | None = None,
        sampler: Literal["euler", "heun", "ddim", "ddpm", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "adaptive"]
        | None = None,
    ) -> Tensor:
        """Draw n samples, (n, *shape).

        Args:
            n: number of samples.
            condition: class labels (n,); None draws them at random.
            generator: source of randomness.
            steps: of the sampler; None is its default.
            guidance: weight of classifier-free guidance; 1 is off, None is the model's default.
            sampler: another sampler than the model's.

        Raises:
            DataError: the model is unconditional, or the condition is not n class labels.
            ConfigError: guidance without labels.
        """
        if guidance not in (None, 1) and not self.conditional:
            raise ConfigError(f"guidance={guidance}: the model is unconditional. Leave it out.")
        z = self.prior_noise(n, generator)
        y = self.resolve_labels(n, condition, generator) if self.conditional else None
        if not self.conditional:
            self.check_condition(condition)
        chosen = self.choose_sampler(sampler, steps)
        return self.generate_data(z, y, chosen, chosen.plan(self.path), generator, guidance)

    def generate_data(
        self,
        z: Tensor,
        y: Tensor | None,
        sampler: Sampler,
        plan: Sequence[Point],
        generator: torch.Generator | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        """Standard normal noise (B, *shape) and labels (B,) -> data."""
        randn = partial(self.randn, *z.shape, generator=generator)
        z = z * prior_scale(self.path)
        for state, _ in self.states(z, self.denoise_fn(y, guidance), sampler, plan, randn):
            z = state
        return self.to_data(z)

    def to_data(self, x: Tensor) -> Tensor:
        """Standardised data -> data; images are clamped to [0, 1]."""
        x = self.standardize.inverse(x)
        return x.clamp(0, 1) if isinstance(self.spec.x, Image) else x

    # -- latents: the probability-flow ODE is invertible ---------------------------------------------------------

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data (B, *shape) -> the noise (B, D) that the ODE maps to it."""
        sampler = self.ode_sampler()
        first = max(self.path.first, self.path.time_of(torch.tensor(ENCODED_LOG_SNR)).item())
        plan = [self.path.number(first), *sampler.plan(self.path)[-2::-1]]
        z = plan[0].a * self.standardize(x)
        for state, _ in self.states(
            z, self.denoise_fn(self.labels(y), 1.0), sampler, plan, partial(torch.randn_like, z)
        ):
            z = state
        return (z / prior_scale(self.path)).flatten(1)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Noise (B, D) -> data, by the ODE."""
        sampler = self.ode_sampler()
        z = z.view(len(z), *self.spec.shape)
        return self.generate_data(z, self.labels(y), sampler, sampler.plan(self.path), guidance=1.0)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data -> noise -> data; the error is that of the solver."""
        return self.decode(self.encode(x, y), y)

    def labels(self, y: Tensor | None) -> Tensor | None:
        """Labels for the network; None where the model is unconditional."""
        if self.conditional and y is None:
            raise ZooError("y=None: the model is conditional. Pass the class labels of the data.")
        return y if self.conditional else None

    def ode_sampler(self) -> Sampler:
        """The default sampler, or Heun's method where that one is random or of several steps."""
        return self.sampler if self.sampler.registered_name in ("euler", "heun") else self.choose_sampler("heun", None)

    def interpolate(self, n: int, steps: int, *, generator: torch.Generator | None = None) -> Tensor:
        """n interpolations between two noises, (n, steps, *shape), of one label each: cos t z0 + sin t z1."""
        ends = self.prior_noise(2 * n, generator)
        y = self.resolve_labels(n, None, generator).repeat_interleave(steps) if self.conditional else None
        t = (torch.linspace(0, math.pi / 2, steps, device=ends.device)).view(-1, *[1] * len(self.spec.shape))
        paths = t.cos() * ends[:n, None] + t.sin() * ends[n:, None]  # (n, steps, *shape)
        sampler = self.ode_sampler()
        x = self.generate_data(paths.flatten(0, 1), y, sampler, sampler.plan(self.path))
        return x.unflatten(0, (n, steps))

    # -- likelihoods ---------------------------------------------------------------------------------------------

    def likelihoods(self, x: Tensor, y: Tensor | None = None, *, k: int = 1) -> tuple[Likelihood, ...]:
        """Images: a bound on the probability of their levels. Vectors: the density by the probability-flow ODE."""
        if isinstance(self.spec.x, Image):
            return (Likelihood(self.bound(x, y, draws=BOUND_DRAWS * k), "discrete", exact=False, name="nelbo"),)
        return (Likelihood(self.log_prob(x, y), "continuous", exact=True, name="nll_ode"),)

    @torch.no_grad()
    def bound(self, x: Tensor, y: Tensor | None = None, draws: int = BOUND_DRAWS) -> Tensor:
        """Variational lower bound on the log-probability of an image's levels, nats (B,), from so many times each."""
        denoise = partial(self.estimate, y=self.labels(y))
        return variational_bound(denoise, self.standardize(x), self.path, self.level_values(), draws)

    def log_prob(self, x: Tensor, y: Tensor | None = None, tolerance: float = 1e-4) -> Tensor:
        """Log-density by the probability-flow ODE, nats (B,); the divergence is an estimate above 16 dimensions."""
        y, x = self.labels(y), self.standardize(x)
        first = max(self.path.first, float(self.path.time_of(torch.tensor(13.0))))
        probe = None if x[0].numel() <= EXACT_DIVERGENCE else torch.randint_like(x, 2) * 2 - 1
        log_prob = ode_log_prob(partial(self.estimate, y=y), x, self.path, first, tolerance, probe)
        return log_prob + self.standardize.log_abs_det

    # -- pictures and exports ------------------------------------------------------------------------------------

    def visuals(self, batch: Batch) -> Iterator[Visual]:
        """Estimates of x while sampling, one row per sample, from noise to data."""
        if not isinstance(self.spec.x, Image):
            return
        generator, n, columns = torch.Generator().manual_seed(SEED), 8, 8
        z = self.prior_noise(n, generator)
        y = torch.arange(n, device=self.device) % self.spec.n_classes if self.conditional else None
        z, randn = z * prior_scale(self.path), partial(self.randn, *z.shape, generator=generator)
        plan = self.sampler.plan(self.path)
        estimates = [x for _, x in self.states(z, self.denoise_fn(y), self.sampler, plan, randn)]
        shown = [estimates[round(i)] for i in torch.linspace(0, len(estimates) - 1, columns).tolist()]
        yield Visual("denoising", self.spec.x, self.to_data(torch.stack(shown, 1)).flatten(0, 1), columns)

    def export_module(self) -> ExportableSampler:
        """Noise, and labels if conditional -> data, by the default sampler, unrolled."""
        inputs = [InputSpec("noise", "normal", tuple(self.spec.shape))]
        if self.conditional:
            inputs.append(InputSpec("label", "class", high=self.spec.n_classes))
        plan = self.sampler.plan(self.path)
        return ExportableSampler(
            lambda z, y=None: self.generate_data(z, y, self.sampler, plan), inputs, self.denoiser, self.standardize
        )

    def charts(self) -> dict[str, list[str]]:
        """The loss, and its parts by noise level."""
        parts = [f"val/loss_noise_{index + 1}_of_{BINS}" for index in range(BINS)]
        return {"loss": ["train/loss", "val/loss"], "loss by noise level": parts}
