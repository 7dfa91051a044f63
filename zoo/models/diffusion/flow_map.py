"""Flow maps: a network of two times jumps along the ODE of a diffusion model, in one evaluation or a few."""

import math
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Component, Fraction, NonNegative, PositiveInt
from zoo.core.spaces import Image, Vector
from zoo.core.spec import DataSpec
from zoo.models.diffusion.diffusion import Diffusion
from zoo.nn.diffusion.flow_map import eulerian, lagrangian, mean_velocity_error, progressive
from zoo.nn.diffusion.path import Point
from zoo.nn.diffusion.sampler import velocity
from zoo.nn.diffusion.target import determinant, input_scale, solve
from zoo.nn.networks.components import Backbone, Denoiser
from zoo.nn.optim.components import Optimizer

ADAPTIVE_OFFSET = 1e-2  # of squared errors, in the adaptive weight


@register("model", "flow_map")
class FlowMap(Diffusion):
    """Flow map: a diffusion model whose network also takes the time to jump to.

    A share of each batch trains the denoiser, at equal times. The rest trains jumps by a rule, whose target is the
    network itself without gradient. With equal times the model is a diffusion model: its densities, latents and other
    samplers are those of the ODE.

    Args:
        spec: what the data looks like.
        rule: of the jumps. Progressive: a jump equals two shorter ones (shortcut models). Eulerian: its end does not
            change along the path (MeanFlow). Lagrangian: its end moves with the velocity there. Both use derivatives of
            the network. Consistency: jumps to the data from neighbouring noise levels of one pair agree.
        tangent: of the eulerian rule, the velocity of the pair ("data", MeanFlow) or of the model (improved MeanFlow).
        split: of the progressive rule, where the two jumps meet: at a random time, or half-way.
        stages: of the consistency rule: the gap of two noise levels is halved so many times during the training.
        diagonal: share of the batch that trains the denoiser.
        adaptive: each sample's loss has the weight (squared error + 0.01)^-p, for the squared error summed over values.
            It is for the eulerian rule, whose targets are noisy.
        path: a(t) and s(t).
        target: what the network predicts; see `zoo.nn.diffusion.target`.
        weighting: of the loss over noise levels.
        times: distribution of both times in training.
        coupling: which noise goes with which sample.
        denoiser: the network.
        sampler: default of `sample`.
        text_encoder: reads the texts that the data are given with, if they are.
        conditional: false ignores class labels, texts and images that the data are given with; None uses them.
        label_dropout: share of a batch that is trained without its label, for guidance.
        guidance: default weight of classifier-free guidance; 1 is off.
        guidance_interval: two log-SNRs between which guidance acts (Kynkäänniemi et al. 2024, arXiv:2404.07724); None
            is everywhere.
        clip: clip the estimates of x to the range of images while sampling.
        autoguidance: share of the training after which a weaker copy is stored for guidance; see `Diffusion`.
        optimizer: with its learning rate and schedule.

    Raises:
        ConfigError: a target that is undefined at the end of the path.
    """

    accepts = (Image, Vector)
    paper = "Boffi et al. 2025 (arXiv:2505.18825); Geng et al. 2025 (arXiv:2505.13447)"
    n_levels: ClassVar[int] = 2

    def __init__(
        self,
        spec: DataSpec,
        *,
        rule: Literal["progressive", "eulerian", "lagrangian", "consistency"] = "progressive",
        tangent: Literal["data", "model"] = "model",
        split: Literal["random", "half"] = "random",
        stages: PositiveInt = 8,
        diagonal: Fraction = 0.5,
        adaptive: NonNegative = 0.0,
        path: Annotated[str | dict[str, Any], Component("path")] = "linear",
        target: Literal["x", "eps", "velocity", "v", "score", "edm"] = "velocity",
        weighting: Annotated[str | dict[str, Any], Component("weighting")] = "from_target",
        times: Annotated[str | dict[str, Any], Component("times")] = "uniform",
        coupling: Annotated[str | dict[str, Any], Component("coupling")] = "independent",
        denoiser: Denoiser = "auto",
        sampler: Annotated[str | dict[str, Any], Component("sampler")] = "flow_map",
        text_encoder: Backbone | None = None,
        conditional: bool | None = None,
        label_dropout: Fraction = 0.1,
        guidance: NonNegative = 1.0,
        guidance_interval: list[float] | None = None,
        clip: bool = False,
        autoguidance: Fraction = 0.0,
        optimizer: Optimizer = "adam",
    ) -> None:
        super().__init__(
            spec, path=path, target=target, weighting=weighting, times=times, coupling=coupling, denoiser=denoiser,
            sampler=sampler, text_encoder=text_encoder, conditional=conditional, label_dropout=label_dropout,
            guidance=guidance, guidance_interval=guidance_interval, clip=clip, autoguidance=autoguidance,
            optimizer=optimizer,
        )  # fmt: skip

    # -- the network ---------------------------------------------------------------------------------------------

    def predict(self, z: Tensor, at: Point, y: Tensor | None, to: Point | None = None) -> Tensor:
        """The network's prediction at z (B, *shape) for a jump between two points; None is a jump of length zero.

        The network is given the angle of (a, s), from -1 at the data to 1 at the noise, and its change in the jump.
        Unlike the log-SNR, they have bounded derivatives.
        """
        level = noise_angle(at)
        jump = torch.zeros_like(level) if to is None else level - noise_angle(to)
        levels = torch.stack([part.flatten().expand(z.shape[0]) for part in (level, jump)], 1).to(z.dtype)  # (B, 2)
        # A compiled network does not have forward derivatives.
        network = self.denoiser.forward if torch._C._are_functorch_transforms_active() else self.denoiser
        output = network(z * input_scale(at).to(z.dtype), levels, y)
        return output.to(torch.promote_types(output.dtype, torch.float32))

    def estimate(
        self, z: Tensor, t: Tensor | float, y: Tensor | None = None, to: Tensor | float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Estimates of x and e for a jump from t to `to`, each one time or times (B,); None is a jump of length zero.

        The jump ends at a x + s e, for a and s of its second time.
        """
        at = self.path.at(as_times(t, z)).like(z)
        end = None if to is None else self.path.at(as_times(to, z)).like(z)
        output = self.predict(z, at, y, end)
        return solve(output, z, Point(*(c.to(output.dtype) for c in at)), self.target)

    def jump(self, z: Tensor, t: Tensor, r: Tensor, y: Tensor | None = None) -> Tensor:
        """X_{t->r}(z): the state (B, *shape) at times r (B,) of the ODE that is at z at times t (B,)."""
        x, e = self.estimate(z, t, y, r)
        to = self.path.at(r).like(z)
        return to.a * x + to.s * e

    # -- the objective -------------------------------------------------------------------------------------------

    def squared_errors(
        self, x: Tensor, y: Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Diffusion`: the first rows train the denoiser, the others jumps."""
        n = min(round(self.hparams["diagonal"] * len(x)), len(x) - 1)
        errors, t = self.jump_errors(x[n:], None if y is None else y[n:], generator)
        if n:
            near, t_near = super().squared_errors(x[:n], None if y is None else y[:n], generator)
            errors, t = torch.cat([near, errors]), torch.cat([t_near, t])
        if power := self.hparams["adaptive"]:
            weight = (errors.detach() * x[0].numel() + ADAPTIVE_OFFSET) ** -power
            weighted = weight * errors
            errors = weighted + (errors - weighted).detach()  # the gradient of one, the value of the other
        return errors, t

    def jump_errors(self, x: Tensor, y: Tensor | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Weighted squared error per value of each jump, and its first time, both (B,)."""
        noise, t, density = self.draw(x, y, generator)
        place = self.device if generator is None else torch.device("cpu")
        u = torch.rand(2, len(x), generator=generator, device=place).to(t)
        if self.hparams["rule"] == "consistency":
            r = torch.full_like(t, self.path.first)
        else:
            other, _ = self.times.draw(u[0].clamp(1e-6, 1 - 1e-6), self.path)
            t, r = torch.maximum(t, other), torch.minimum(t, other)
        y = self.dropped(y)
        at, to = self.path.at(t).like(x), self.path.at(r).like(x)
        z = at.a * x + at.s * noise
        scale = determinant(self.target, at) / at.wronskian  # from errors of the velocity to those of the output
        jump, field = partial(self.jump, y=y), partial(self.velocity_at, y=y)
        if self.hparams["rule"] == "lagrangian":
            error = scale * lagrangian(jump, field, z, t, r)
        else:
            output = self.predict(z, at, y, to)
            with torch.no_grad():
                change = self.change_of_velocity(output, x, noise, z, t, r, u[1], y)
                goal = output + scale * change
            error = output - goal
        factor = self.weighting.loss_factor(self.target, self.path.at(t), density)
        return factor * error.square().flatten(1).mean(1), t

    def change_of_velocity(
        self, output: Tensor, x: Tensor, noise: Tensor, z: Tensor, t: Tensor, r: Tensor, u: Tensor, y: Tensor | None
    ) -> Tensor:
        """The change of the mean velocity (B, *shape) at z that a rule requires."""
        jump, at, to = partial(self.jump, y=y), self.path.at(t).like(x), self.path.at(r).like(x)
        if self.hparams["rule"] == "eulerian":
            of_pair = at.da * x + at.ds * noise
            tangent = of_pair if self.hparams["tangent"] == "data" else self.velocity_at(z, t, y)
            return eulerian(jump, z, t, r, tangent) + of_pair - tangent
        if self.hparams["rule"] == "consistency":
            q = torch.lerp(t, r, self.gap())
            goal = jump(self.path.mix(x, noise, q), q, r)
        else:
            share = u if self.hparams["split"] == "random" else 0.5
            goal = progressive(jump, z, t, r, t + share * (r - t))
        x_hat, e_hat = solve(output, z, at, self.target)
        return mean_velocity_error(to.a * x_hat + to.s * e_hat, goal, at, to)

    def gap(self) -> float:
        """Distance of two noise levels of the consistency rule, as a share of their distance to the data.

        It is halved at each stage, starting from a half (Geng et al. 2024, arXiv:2406.14548).
        """
        done = 0.0 if self.attached_trainer is None else self.step / max(self.total_steps, 1)
        return 2.0 ** -(1 + math.floor(self.hparams["stages"] * done))

    def velocity_at(self, z: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """dz/dt of the ODE at z (B, *shape) and times (B,)."""
        return velocity(*self.estimate(z, t, y), self.path.at(t).like(z))


def as_times(t: Tensor | float, z: Tensor) -> Tensor:
    """One time as a tensor (1,), or times (B,)."""
    return t if isinstance(t, Tensor) else torch.full((1,), t, dtype=torch.float64, device=z.device)


def noise_angle(point: Point) -> Tensor:
    """The angle of (a, s), from -1 without noise to 1 without signal."""
    return torch.atan2(point.s, point.a) * (4 / math.pi) - 1
