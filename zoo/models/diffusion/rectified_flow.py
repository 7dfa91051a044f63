"""Rectified flow: flow matching on the noise and the samples of another model, whose paths become straight."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import Component, Fraction, NonNegative
from zoo.core.spaces import Image, Vector
from zoo.core.spec import DataSpec
from zoo.models.diffusion.base import SEED, DenoisingModel
from zoo.models.diffusion.diffusion import Diffusion
from zoo.nn.diffusion.coupling import Reflow
from zoo.nn.diffusion.likelihood import prior_scale
from zoo.nn.networks.components import Backbone, Denoiser
from zoo.nn.optim.components import Optimizer

CHUNK = 512  # pairs that are made together
HELD_OUT = 1 / 8  # of the pairs, for validation

Pair = tuple[Tensor, Tensor, Tensor | None]  # noise and standardised samples (N, *shape), labels (N,)


@register("model", "rectified_flow")
class RectifiedFlow(Diffusion):
    """Reflow: train on pairs of noise and the sample that a trained model's ODE makes of it, so that one step suffices.

    `init_from=RUN` sets the teacher. The network starts from that of the teacher where their sizes agree. The pairs are
    made once, before the first batch, and again after a resume; the data set gives the number of samples in a batch.

    Args:
        spec: what the data looks like.
        teacher: a diffusion model or flow; `init_from=RUN` sets it.
        path: a(t) and s(t).
        target: what the network predicts; see `zoo.nn.diffusion.target`.
        weighting: of the loss over noise levels.
        times: distribution of noise levels in training.
        coupling: reflow, with the number of pairs.
        denoiser: the network.
        sampler: default of `sample`.
        text_encoder: reads the texts that the data are given with, if they are.
        conditional: condition on what the data are given with, as the teacher does; None does so if there is something.
        label_dropout: share of a batch that is trained without its label, for guidance.
        guidance: default weight of classifier-free guidance; 1 is off.
        guidance_interval: two log-SNRs between which guidance acts (Kynkäänniemi et al. 2024, arXiv:2404.07724); None
            is everywhere.
        clip: clip the estimates of x to the range of images while sampling.
        autoguidance: share of the training after which a weaker copy is stored for guidance; see `Diffusion`.
        optimizer: with its learning rate and schedule.

    Raises:
        ConfigError: a teacher without an ODE or with another condition, or another coupling.
    """

    accepts = (Image, Vector)
    paper = "Liu et al. 2022 (arXiv:2209.03003)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        teacher: Annotated[str | dict[str, Any], Component("model", pretrained=True)] = "diffusion",
        path: Annotated[str | dict[str, Any], Component("path")] = "linear",
        target: Literal["x", "eps", "velocity", "v", "score", "edm"] = "velocity",
        weighting: Annotated[str | dict[str, Any], Component("weighting")] = "from_target",
        times: Annotated[str | dict[str, Any], Component("times")] = "uniform",
        coupling: Annotated[str | dict[str, Any], Component("coupling")] = "reflow",
        denoiser: Denoiser = "auto",
        sampler: Annotated[str | dict[str, Any], Component("sampler")] = "euler",
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
        if not isinstance(self.coupling, Reflow):
            name = self.coupling.registered_name
            raise ConfigError(f"model/coupling={name}: does not hold pairs. Choose reflow, or model=diffusion.")
        self.teacher: DenoisingModel = self.build_component("teacher", "model", spec, method="denoise_fn")
        if self.teacher.conditional != self.conditional:
            raise ConfigError(
                f"model.conditional={self.conditional}: the teacher has {self.teacher.conditional}. Set "
                f"model.conditional={self.teacher.conditional}."
            )
        self.teacher.requires_grad_(False).eval()
        self.pairs: Pair | None = None

    def train(self, mode: bool = True) -> "RectifiedFlow":
        """Switch the mode of everything but the teacher."""
        super().train(mode)
        self.teacher.eval()
        return self

    def modules_to_compile(self) -> list[nn.Module]:
        """The network."""
        return [self.denoiser]

    # -- the teacher ---------------------------------------------------------------------------------------------

    def pretrained_state(self) -> dict[str, Tensor]:
        """Weights of the teacher."""
        return self.teacher.state_dict()

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Set the weights of the teacher, and start from them where the networks have the same sizes."""
        self.teacher.load_state_dict(dict(weights))
        own, given = self.denoiser.state_dict(), self.teacher.denoiser.state_dict()
        if {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in given.items()}:
            self.denoiser.load_state_dict(given)

    @torch.no_grad()
    def make_pairs(self) -> Pair:
        """Noise, and standardised samples of the teacher's ODE, each (N, *shape), with labels (N,); always the same."""
        assert isinstance(self.coupling, Reflow)
        generator, n = torch.Generator().manual_seed(SEED), self.coupling.pairs
        y = self.resolve_labels(n, None, generator) if self.conditional else None
        noise = self.prior_noise(n, generator)
        sampler, x = self.teacher.ode_sampler(), []
        plan = sampler.plan(self.teacher.path)
        for rows in torch.arange(n).split(CHUNK):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            z = noise[part] * prior_scale(self.teacher.path)
            denoise = self.teacher.denoise_fn(None if y is None else y[part])
            for state, _ in self.teacher.states(z, denoise, sampler, plan, lambda: torch.empty(0)):
                z = state
            x.append(self.standardize(self.teacher.standardize.inverse(z)))
        return noise, torch.cat(x), y

    # -- the objective -------------------------------------------------------------------------------------------

    def squared_errors(
        self, x: Tensor, y: Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Diffusion`, for as many pairs as there are data; with a generator, for held-out pairs."""
        if self.pairs is None:
            self.pairs = self.make_pairs()
        n = len(self.pairs[0])
        held_out = max(round(HELD_OUT * n), 1)
        low, high = (0, held_out) if generator is not None else (held_out, max(n, held_out + 1))
        place = self.device if generator is None else torch.device("cpu")
        rows = torch.randint(low, high, (len(x),), generator=generator, device=place).to(self.device) % n
        noise, x = (part[rows] for part in self.pairs[:2])
        y = None if self.pairs[2] is None else self.pairs[2][rows]
        _, t, density = self.draw(x, y, generator)
        return self.errors_of(x, y, noise, t, density), t
