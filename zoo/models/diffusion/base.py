"""Base class of models that remove noise: estimates, sampling, the probability-flow ODE, pictures and exports."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from zoo.core.counted import counted
from zoo.core.errors import ConfigError, DataError, ZooError
from zoo.core.signature import NonNegative, PositiveInt
from zoo.core.space import PixelSpace
from zoo.core.spaces import Image
from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.models.given_condition import GivenCondition
from zoo.models.results import Visual
from zoo.nn.blocks.standardize import Standardize
from zoo.nn.diffusion.build_sampler import build_sampler
from zoo.nn.diffusion.guidance import clipped, guided
from zoo.nn.diffusion.likelihood import prior_scale
from zoo.nn.diffusion.path import Path, Point
from zoo.nn.diffusion.sampler import Denoise, Sampler
from zoo.nn.diffusion.target import Target, input_scale, solve
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec
from zoo.nn.samplers.noise import fork, step_noise

SEED = 50_000_000  # of times and noise outside training
MAX_LOG_SNR = 20.0  # that a network sees
STEP_COUNTS = (1, 2, 4, 8, 16)  # of samples on the dashboard
STEPS = "steps"  # name of the noise that a stochastic sampler adds
ENCODED_LOG_SNR = 9.0  # of data that the ODE starts from, without noise: s / a = .011


class DenoisingModel(GivenCondition, Model):
    """A denoiser on a path, with everything that needs no more than its estimates.

    A subclass sets the attributes, and has the settings `guidance`, `guidance_interval`, `clip`, `sampler`, `target`.

    Args:
        spec: what the data looks like.
    """

    path: Path
    target: Target
    predicts_levels: bool  # the network gives a logit for each level, and the target is x
    sampler: Sampler
    standardize: Standardize
    denoiser: nn.Module

    # -- the network ---------------------------------------------------------------------------------------------

    def predict(self, z: Tensor, at: Point, y: Tensor | None) -> Tensor:
        """The network's prediction of the target at z (B, *shape), at one point of the path for each row."""
        noise = (at.log_snr.clamp(-MAX_LOG_SNR, MAX_LOG_SNR) / 4).flatten().to(z.dtype)
        output = self.denoiser(z * input_scale(at).to(z.dtype), noise.expand(z.shape[0]), y)
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        if not self.predicts_levels:
            return output
        logits = output.unflatten(1, (-1, z.shape[1]))  # (B, K, C, H, W)
        levels = self.level_values().to(z).view(1, -1, 1, 1, 1)
        a, s = (c.to(z.dtype)[:, None] for c in (at.a, at.s))
        evidence = -0.5 * ((z[:, None] - a * levels) / s.clamp(min=1e-4)).square()
        return ((logits + evidence).softmax(1) * levels).sum(1)

    @property
    def has_levels(self) -> bool:
        """Whether the data are images or videos on a grid of levels."""
        return isinstance(self.spec.x, PixelSpace) and self.spec.x.levels > 0

    def level_values(self) -> Tensor:
        """Levels of images or videos (K,), standardised."""
        assert isinstance(self.spec.x, PixelSpace)
        return self.standardize(torch.linspace(0, 1, self.spec.x.levels, device=self.device))

    def estimate(
        self, z: Tensor, t: Tensor | float, y: Tensor | None = None, to: Tensor | float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Estimates of the data x and the noise e at z (B, *shape), at one time or times (B,).

        `to` is the time that a flow map jumps to; other models ignore it.
        """
        t = t if isinstance(t, Tensor) else torch.full((1,), t, dtype=torch.float64, device=z.device)
        at = self.path.at(t).like(z)
        output = self.predict(z, at, y)
        return solve(output, z, Point(*(c.to(output.dtype) for c in at)), self.target)

    def hidden_layers(self) -> list[nn.Module]:
        """The network."""
        return [self.denoiser]

    # -- sampling ------------------------------------------------------------------------------------------------

    def denoise_fn(
        self, y: Tensor | None, guidance: float | None = None, interval: Sequence[float] | None = None
    ) -> Denoise:
        """The denoiser for samplers: of classes y (B,), guided, clipped if set."""
        return self.clip(self.guided_fn(y, guidance, interval))

    def guided_fn(
        self, y: Tensor | None, guidance: float | None = None, interval: Sequence[float] | None = None
    ) -> Denoise:
        """The denoiser given conditions y (B, ...), guided; None stands for no condition, or for the setting."""
        weight = self.hparams["guidance"] if guidance is None else guidance
        interval = checked_interval(self.hparams.get("guidance_interval") if interval is None else interval)
        denoise: Denoise = partial(self.estimate, y=y)
        if weight != 1 and (worse := self.worse(y)) is not None:
            denoise = guided(denoise, worse, weight, self.path, interval)
        return denoise

    def clip(self, denoise: Denoise, always: bool = False) -> Denoise:
        """The denoiser, its estimates of images clipped if set, or always."""
        if (always or self.hparams["clip"]) and self.has_levels:
            low, high = self.standardize(torch.tensor([0.0, 1.0], device=self.device)).tolist()
            denoise = clipped(denoise, self.path, low, high)
        return denoise

    def worse(self, y: Tensor | None) -> Denoise | None:
        """The denoiser that guidance leads away from: without the conditions y (B, ...), or none."""
        return None if y is None else partial(self.estimate, y=None)

    def choose_sampler(self, name: str | None, steps: int | None) -> Sampler:
        """The default sampler, or another one by name; with another number of steps if given."""
        return build_sampler(Sampler, self.hparams["sampler"] if name is None else name, steps)

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
        guidance_interval: list[float] | None = None,
        sampler: str | None = None,
    ) -> Tensor:
        """Draw n samples, (n, *shape).

        Args:
            n: number of samples.
            condition: class labels (n,), where None draws them at random; or images or tokens (n, ...), where None
                leaves them out.
            generator: source of randomness.
            steps: of the sampler; None is its default.
            guidance: weight of classifier-free guidance; 1 is off, None is the model's default.
            guidance_interval: two log-SNRs between which guidance acts; None is the model's default.
            sampler: registered name of another sampler than the model's.

        Raises:
            DataError: the model is unconditional, or the condition is not n class labels.
            ConfigError: guidance without labels, not an interval, or an unknown sampler.
        """
        z, y, chosen, randn = self.begin(n, condition, generator, steps, guidance, sampler)
        denoise = self.denoise_fn(y, guidance, guidance_interval)
        return self.denoised(z, denoise, chosen, chosen.plan(self.path), randn)

    def denoising(
        self,
        n: int,
        frames: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: PositiveInt | None = None,
        guidance: NonNegative | None = None,
        guidance_interval: list[float] | None = None,
        sampler: str | None = None,
    ) -> Tensor:
        """Estimates of the data while `sample` draws them, evenly from its first to its last step, (n, frames, *shape).

        Args:
            n: number of samples.
            frames: estimates of each; if the sampler has fewer steps, some are repeated.
            condition: see `sample`.
            generator: see `sample`.
            steps: see `sample`.
            guidance: see `sample`.
            guidance_interval: see `sample`.
            sampler: see `sample`.

        Raises:
            ZooError: see `sample`.
        """
        z, y, chosen, randn = self.begin(n, condition, generator, steps, guidance, sampler)
        plan, z = chosen.plan(self.path), z * prior_scale(self.path)
        estimates = [x for _, x in self.states(z, self.denoise_fn(y, guidance, guidance_interval), chosen, plan, randn)]
        shown = [estimates[round(i)] for i in torch.linspace(0, len(estimates) - 1, frames).tolist()]
        return self.to_data(torch.stack(shown, 1))

    def begin(
        self,
        n: int,
        condition: Tensor | None,
        generator: torch.Generator | None,
        steps: int | None,
        guidance: float | None,
        sampler: str | None,
    ) -> tuple[Tensor, Tensor | None, Sampler, Callable[[], Tensor]]:
        """Standard normal noise (n, *shape), conditions (n, ...), the sampler and its noise; see `sample`."""
        guides = self.conditional or condition is not None or self.worse(None) is not None
        if guidance not in (None, 1) and not guides:
            raise ConfigError(f"guidance={guidance}: without a condition. Leave it out.")
        self.check_condition(condition)
        chosen, randn = self.choose_sampler(sampler, steps), self.step_noise(n, generator)
        y = self.resolve_condition(n, condition, generator)
        return self.prior_noise(n, generator), y, chosen, randn

    def step_noise(self, n: int, generator: torch.Generator | None) -> Callable[[], Tensor]:
        """Source of noise (n, *shape) for each step; a sample's noise does not depend on n. Call it before any draw."""
        source, steps = fork(generator, STEPS), itertools.count()
        return lambda: step_noise(source, next(steps), n, *self.spec.shape).to(self.device)

    def generate_data(
        self,
        z: Tensor,
        y: Tensor | None,
        sampler: Sampler,
        plan: Sequence[Point],
        randn: Callable[[], Tensor] | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        """Standard normal noise (B, *shape) and labels (B,) -> data; `randn` is for samplers that draw on the way."""
        randn = partial(torch.randn_like, z) if randn is None else randn
        return self.denoised(z, self.denoise_fn(y, guidance), sampler, plan, randn)

    def denoised(
        self, z: Tensor, denoise: Denoise, sampler: Sampler, plan: Sequence[Point], randn: Callable[[], Tensor]
    ) -> Tensor:
        """Standard normal noise (B, *shape) -> data, by a denoiser."""
        z = z * prior_scale(self.path)
        for state, _ in self.states(z, denoise, sampler, plan, randn):
            z = state
        return self.to_data(z)

    def to_data(self, x: Tensor) -> Tensor:
        """Standardised data -> data; images with levels are clamped to [0, 1]."""
        x = self.standardize.inverse(x)
        return x.clamp(0, 1) if self.has_levels else x

    # -- latents: the probability-flow ODE is invertible ---------------------------------------------------------

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data (B, *shape) -> the noise (B, D) that the ODE maps to it."""
        z = self.invert(x, self.labels(y), self.ode_sampler(), self.path.last)
        return (z / prior_scale(self.path)).flatten(1)

    def invert(self, x: Tensor, y: Tensor | None, sampler: Sampler, end: float) -> Tensor:
        """Data (B, *shape) of classes y (B,), or of no class -> the ODE's state at a time, (B, *shape)."""
        first = max(self.path.first, self.path.time_of(torch.tensor(ENCODED_LOG_SNR)).item())
        between = [point for point in sampler.plan(self.path)[-2::-1] if first < point.t < end]
        plan = [self.path.number(first), *between, self.path.number(end)]
        z = plan[0].a * self.standardize(x)
        for state, _ in self.states(z, self.denoise_fn(y, 1.0), sampler, plan, partial(torch.randn_like, z)):
            z = state
        return z

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Noise (B, D) -> data, by the ODE."""
        sampler = self.ode_sampler()
        z = z.view(len(z), *self.spec.shape)
        return self.generate_data(z, self.labels(y), sampler, sampler.plan(self.path), guidance=1.0)

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data -> noise -> data; the error is that of the solver."""
        return self.decode(self.encode(x, y), y)

    def labels(self, y: Tensor | None) -> Tensor | None:
        """Conditions for the network; None where the model is unconditional."""
        if self.conditional and y is None:
            raise ZooError("y=None: the model is conditional. Pass the class labels of the data.")
        return y if self.conditional or self.given is not None else None

    def class_or_none(self, n: int, condition: Tensor | None) -> Tensor | None:
        """Class labels (n,) for changes of given data; None stands for no class.

        Raises:
            DataError: labels of an unconditional model, or none for a model that was trained with labels only.
        """
        if condition is not None:
            return self.resolve_condition(n, condition, None)
        if self.conditional and not self.hparams["label_dropout"]:
            raise DataError(
                "condition=None: the model was trained with model.label_dropout=0, so always with a class. Give one."
            )
        return None

    def ode_sampler(self) -> Sampler:
        """The default sampler, or Heun's method where that one does not run backwards."""
        return self.sampler if self.sampler.reversible else self.choose_sampler("heun", None)

    # -- pictures and exports ------------------------------------------------------------------------------------

    def visuals(self, batch: Batch) -> Iterator[Visual]:
        """Estimates of x while sampling, one row per sample; and samples of one noise by 1, 2, 4, 8 and 16 steps."""
        if not isinstance(self.spec.x, Image):
            return
        n, columns = 8, 8
        y = torch.arange(n, device=self.device) % self.spec.n_classes if self.conditional else None
        if self.given is not None:
            y = batch.y[:n].to(self.device)
            n = len(y)
        generator = torch.Generator().manual_seed(SEED)
        found = self.denoising(n, columns, condition=y, generator=generator)
        yield Visual("denoising", self.spec.x, found.flatten(0, 1), columns)
        if not self.sampler.fixed_steps:
            return
        samplers = [replace(self.sampler, steps=steps) for steps in STEP_COUNTS]
        noise = self.prior_noise(n, torch.Generator().manual_seed(SEED))
        rows = [self.generate_data(noise, y, s, s.plan(self.path), self.step_noise(n, generator)) for s in samplers]
        yield Visual(
            "samples_by_steps", self.spec.x, torch.cat(rows), n, [counted(steps, "step") for steps in STEP_COUNTS]
        )

    def export_module(self) -> ExportableSampler:
        """Noise, labels if conditional, and the noise of all steps if there is some -> data.

        The steps of the default sampler are unrolled. A stochastic one has an input with noise for each but the last.
        """
        shape, plan = tuple(self.spec.shape), self.sampler.plan(self.path)
        inputs = [InputSpec("noise", "normal", shape)]
        if self.conditional:
            inputs.append(InputSpec("label", "class", high=self.spec.n_classes, shares=tuple(self.class_shares)))
        renewed = len(plan) - 2 if self.sampler.stochastic else 0
        if renewed:
            inputs.append(InputSpec(STEPS, "normal", (renewed, *shape), by_step=True))
        networks = [self.denoiser] if getattr(self, "weak", None) is None else [self.denoiser, self.weak]

        def drawn(z: Tensor, *more: Tensor) -> Tensor:
            noise = iter(more[-1].unbind(1) if renewed else ())
            y = more[0] if self.conditional else None
            return self.generate_data(z, y, self.sampler, plan, lambda: next(noise))

        return ExportableSampler(drawn, inputs, *networks, self.standardize)


def checked_interval(interval: Sequence[float] | None) -> tuple[float, float] | None:
    """Two log-SNRs in ascending order.

    Raises:
        ConfigError: anything else.
    """
    if interval is None:
        return None
    numbers = [value for value in interval if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) != len(interval) or len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ConfigError(
            f"guidance_interval={list(interval)}: not two log-SNRs in ascending order. Give a pair such as [-2,4]."
        )
    return numbers[0], numbers[1]
