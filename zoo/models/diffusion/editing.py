"""Changes of given data, and walks between them, by a model that removes noise, without training for them."""

import math
from collections.abc import Callable
from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor

from zoo.core.errors import ConfigError, DataError
from zoo.core.signature import Count, NonNegative, PositiveInt
from zoo.core.spaces import Image, Video
from zoo.core.spec import DataSpec
from zoo.models.diffusion.base import DenoisingModel
from zoo.models.given_parts import expanded_mask, extended
from zoo.nn.diffusion.guidance import posterior
from zoo.nn.diffusion.likelihood import prior_scale
from zoo.nn.diffusion.observation import Observation, RePaint, average_pool, known_values, luma
from zoo.nn.diffusion.path import Point
from zoo.nn.diffusion.sampler import Denoise, Sampler
from zoo.nn.distributions.normal import slerp

STEPS = 64  # of posterior samples
Strength = Annotated[float, Interval(gt=0, le=1)]
Randn = Callable[[], Tensor]


class EditingModel(DenoisingModel):
    """A denoiser that edits, inpaints, continues, magnifies, colours and interpolates given data.

    Args:
        spec: what the data looks like.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        image = isinstance(spec.x, Image)
        if not isinstance(spec.x, Video) or spec.x.frames < 2:
            self.lacks("predict_frames")
        if not image:
            self.lacks("super_resolve")
        if not image or spec.image.channels != len("RGB"):
            self.lacks("colorize")

    # -- change of everything ------------------------------------------------------------------------------------

    def edit(
        self,
        x: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        strength: Strength = 0.6,
        invert: bool = False,
        source: int | None = None,
        steps: PositiveInt | None = None,
        guidance: NonNegative | None = None,
        sampler: str | None = None,
    ) -> Tensor:
        """Variations of data (B, *shape): add noise up to a time, and remove it (SDEdit, Meng et al. 2021, 2108.01073).

        Args:
            x: data.
            condition: class labels of the result (B,); None stands for no class.
            generator: source of randomness.
            strength: share of the path's times. At 1 nothing remains of x on a path that ends in pure noise.
            invert: the probability-flow ODE adds the noise. The result is x, unless the class or guidance differs.
            source: class of x, for `invert`; None stands for no class.
            steps: of the sampler's whole path; None is its default.
            guidance: weight of classifier-free guidance; None is the model's default.
            sampler: registered name of another sampler than the model's.

        Raises:
            DataError: x of another shape, or labels that do not fit.
            ConfigError: options that do not fit together.
        """
        n = self.check_given(x, guidance, condition)
        if source is not None and not invert:
            raise ConfigError(f"source={source}: only for the inversion of data of that class. Add invert=true.")
        chosen, randn = self.choose_sampler(sampler, steps), self.step_noise(n, generator)
        y = self.class_or_none(n, condition)
        begin = self.path.number(self.path.first + strength * (self.path.last - self.path.first))
        plan = [begin, *(point for point in chosen.plan(self.path) if point.t < begin.t)]
        if invert:
            if not chosen.reversible:
                chosen = self.choose_sampler("heun", steps)
            before = None if source is None else torch.full((n,), source)
            z = self.invert(x, self.class_or_none(n, before), chosen, begin.t)
        else:
            z = begin.a * self.standardize(x) + begin.s * self.prior_noise(n, generator)
        return self.to_data(self.last_state(z, self.denoise_fn(y, guidance), chosen, plan, randn))

    # -- posterior samples given a linear observation ------------------------------------------------------------

    def inpaint(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: PositiveInt = STEPS,
        guidance: NonNegative | None = None,
        sampler: str = "ddpm",
        iterations: PositiveInt = 3,
        rounds: Count = 0,
    ) -> Tensor:
        """Draw the values of x (B, *shape) where the mask is True, given the others.

        Args:
            x: data; the values under the mask have no effect.
            mask: (B or 1, *shape), or one channel of it.
            condition: class labels (B,); None stands for no class.
            generator: source of randomness.
            steps: of the sampler.
            guidance: weight of classifier-free guidance; None is the model's default.
            sampler: registered name; new noise at each step corrects errors of earlier ones.
            iterations: of conjugate gradients; see `zoo.nn.diffusion.guidance.posterior`.
            rounds: of RePaint in place of the posterior, which needs no gradients; 0 is off.

        Raises:
            DataError: x, mask or labels that do not fit.
            ConfigError: guidance without labels, or RePaint by a sampler without fixed steps.
        """
        n = self.check_given(x, guidance, condition)
        new = expanded_mask(mask, x.to(self.device))
        x, known = self.standardize(x.to(self.device)), ~new
        if rounds:
            chosen, randn = self.choose_sampler(sampler, steps), self.step_noise(n, generator)
            if not chosen.fixed_steps:
                raise ConfigError(f"sampler={sampler}: has no fixed steps, which RePaint repeats. Use ddpm.")
            denoise, z = self.denoise_fn(self.class_or_none(n, condition), guidance), self.prior(n, generator)
            painter = RePaint(inner=chosen, x=x, known=known, rounds=rounds)
            z = self.last_state(z, denoise, painter, chosen.plan(self.path), randn)
        else:
            H = known_values(known.to(x.dtype))
            z = self.restore(H, H.forward(x), n, condition, generator, steps, guidance, sampler, iterations)
        return self.to_data(torch.where(known, x, z))

    def predict_frames(
        self,
        x: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: PositiveInt = STEPS,
        guidance: NonNegative | None = None,
        sampler: str = "ddpm",
        iterations: PositiveInt = 3,
    ) -> Tensor:
        """Draw videos (B, F, C, H, W) that begin with the frames x (B, K, C, H, W), by `inpaint` in time.

        Args:
            x: first frames, fewer than the model's.
            condition: class labels (B,); None stands for no class.
            generator: source of randomness.
            steps: of the sampler.
            guidance: weight of classifier-free guidance; None is the model's default.
            sampler: registered name; new noise at each step corrects errors of earlier ones.
            iterations: of conjugate gradients; see `zoo.nn.diffusion.guidance.posterior`.

        Raises:
            DataError: x or labels that do not fit.
            ConfigError: guidance without labels.
        """
        whole, new = extended(x, self.spec)
        options: dict[str, Any] = {"condition": condition, "generator": generator, "guidance": guidance}
        return self.inpaint(whole, new, steps=steps, sampler=sampler, iterations=iterations, **options)

    def super_resolve(
        self,
        x: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: PositiveInt = STEPS,
        guidance: NonNegative | None = None,
        sampler: str = "ddpm",
        iterations: PositiveInt = 3,
    ) -> Tensor:
        """Draw images (B, C, H, W) whose means over squares are the pixels of x (B, C, H / f, W / f), for an integer f.

        Args:
            x: small images in [0, 1].
            condition: class labels (B,); None stands for no class.
            generator: source of randomness.
            steps: of the sampler.
            guidance: weight of classifier-free guidance; None is the model's default.
            sampler: registered name; new noise at each step corrects errors of earlier ones.
            iterations: of conjugate gradients; see `zoo.nn.diffusion.guidance.posterior`.

        Raises:
            DataError: x or labels that do not fit.
            ConfigError: guidance without labels.
        """
        c, h, w = self.spec.image.shape
        f = h // x.shape[-2] if x.ndim == 4 and 0 < x.shape[-2] <= h else 1
        if h % f or w % f:
            raise DataError(f"x={tuple(x.shape)}: {h}x{w} is not an integer multiple of its size. Resize x.")
        n = self.check_given(x, guidance, condition, (c, h // f, w // f))
        y = self.standardize(x.to(self.device))
        return self.to_data(
            self.restore(average_pool(f), y, n, condition, generator, steps, guidance, sampler, iterations)
        )

    def colorize(
        self,
        x: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: PositiveInt = STEPS,
        guidance: NonNegative | None = None,
        sampler: str = "ddpm",
        iterations: PositiveInt = 3,
    ) -> Tensor:
        """Draw colour images (B, 3, H, W) whose brightness is that of grey images x (B, 1, H, W).

        Args:
            x: grey images in [0, 1].
            condition: class labels (B,); None stands for no class.
            generator: source of randomness.
            steps: of the sampler.
            guidance: weight of classifier-free guidance; None is the model's default.
            sampler: registered name; new noise at each step corrects errors of earlier ones.
            iterations: of conjugate gradients; see `zoo.nn.diffusion.guidance.posterior`.

        Raises:
            DataError: x or labels that do not fit.
            ConfigError: guidance without labels.
        """
        n = self.check_given(x, guidance, condition, (1, *self.spec.image.shape[1:]))
        y = self.standardize(x.to(self.device))
        return self.to_data(self.restore(luma(), y, n, condition, generator, steps, guidance, sampler, iterations))

    def restore(
        self,
        observation: Observation,
        y: Tensor,
        n: int,
        condition: Tensor | None,
        generator: torch.Generator | None,
        steps: int,
        guidance: float | None,
        sampler: str,
        iterations: int,
    ) -> Tensor:
        """Standardised data (n, *shape) given an observation y of them, by posterior sampling.

        Estimates of images are clipped: a network's Jacobian is not exactly a covariance, and large steps would follow.
        """
        chosen, randn = self.choose_sampler(sampler, steps), self.step_noise(n, generator)
        prior = self.guided_fn(self.class_or_none(n, condition), guidance)
        given = posterior(prior, self.path, y, observation.forward, observation.adjoint, iterations=iterations)
        z = self.prior(n, generator)
        z = self.last_state(z, self.clip(given, always=True), chosen, chosen.plan(self.path), randn)
        return observation.project(z, y)

    # -- walks -----------------------------------------------------------------------------------------------------

    def interpolate(
        self,
        n: int,
        steps: int,
        *,
        generator: torch.Generator | None = None,
        between: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """n interpolations, (n, steps, *shape), of one class each.

        Noise draws follow cos t z0 + sin t z1, which is noise at every t. Between data, the noise that the ODE maps to
        each end turns from one to the other.

        Args:
            n: number of interpolations.
            steps: of each, with both ends.
            generator: source of randomness.
            between: the first ends, then the last ones, (2 n, *shape); None draws noise.
            condition: class labels (n,). None draws them for noise, and leaves it out for data.
        """
        t = torch.linspace(0, 1, steps, device=self.device)[:, None]
        if between is None:
            y = self.resolve_labels(n, condition, generator) if self.conditional else None
            ends = self.prior_noise(2 * n, generator).flatten(1)[:, None]  # (2 n, 1, D)
            z = (t * math.pi / 2).cos() * ends[:n] + (t * math.pi / 2).sin() * ends[n:]  # (n, steps, D)
        else:
            y = self.class_or_none(n, condition)
            sampler = self.ode_sampler()
            z = self.invert(between, None if y is None else torch.cat([y, y]), sampler, self.path.last).flatten(1)[
                :, None
            ]
            z = slerp(z[:n], z[n:], t.to(z.dtype)) / prior_scale(self.path)
        sampler, weight = self.ode_sampler(), None if between is None else 1.0
        y = None if y is None else y.repeat_interleave(steps)
        noise = z.view(n * steps, *self.spec.shape)
        return self.generate_data(noise, y, sampler, sampler.plan(self.path), guidance=weight).unflatten(0, (n, steps))

    # -- parts ---------------------------------------------------------------------------------------------------

    def prior(self, n: int, generator: torch.Generator | None) -> Tensor:
        """States of the last time, (n, *shape)."""
        return self.prior_noise(n, generator) * prior_scale(self.path)

    def last_state(self, z: Tensor, denoise: Denoise, sampler: Sampler, plan: list[Point], randn: Randn) -> Tensor:
        """The state after the last step of a sampler."""
        for state, _ in self.states(z, denoise, sampler, plan, randn):
            z = state
        return z

    def check_given(
        self, x: Tensor, guidance: float | None, condition: Tensor | None, shape: tuple[int, ...] | None = None
    ) -> int:
        """Check given data and the options that all changes have; return the number of samples.

        Raises:
            DataError: another shape.
            ConfigError: guidance without labels.
        """
        shape = tuple(self.spec.shape) if shape is None else shape
        if tuple(x.shape[1:]) != shape:
            raise DataError(f"x={tuple(x.shape)}: not a batch of {shape}. Resize it, or choose another model.")
        self.check_condition(condition)
        if guidance not in (None, 1) and condition is None:
            raise ConfigError(f"guidance={guidance}: needs a class to guide to. Give condition=LABEL, or leave it out.")
        return len(x)
