"""D3PM: discrete diffusion in T steps, by any transition."""

from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Component, Fraction, NonNegative, Positive, PositiveInt
from zoo.core.spec import DataSpec
from zoo.models.diffusion.discrete import DiscreteDiffusion, masked_cross_entropy
from zoo.nn.blocks.constants import FixedConstants
from zoo.nn.diffusion.transition import Transition
from zoo.nn.diffusion.unmasking import Noise, draw_tokens, uniform_noise
from zoo.nn.networks.components import Backbone
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.sampling_params import SamplingParams


@register("model", "d3pm")
class D3PM(FixedConstants, DiscreteDiffusion):
    """Discrete diffusion in T steps: the network predicts the clean tokens, and their posterior makes the step.

    The network reads the step as one more token. `loss` is the bound on -log p and a small multiple of the
    cross-entropy of the clean tokens. It is in nats per token of a text, or per image.

    Args:
        spec: what the data looks like.
        backbone: the encoder: transformer_encoder, or a registered one.
        transition: uniform or absorbing, with the number of steps.
        auxiliary: weight of the cross-entropy (equation 5 of the paper).
        conditional: condition images on class labels; None does so if the data have labels.
        label_dropout: share of a batch that is trained without its label, for guidance.
        guidance: default weight of classifier-free guidance; 1 is off.
        patch: height and width of the rectangle of an image whose pixels are one token.
        optimizer: with its learning rate and schedule; muon takes the matrices of the backbone's blocks.

    Raises:
        ZooError: a patch that does not divide the image or has too many combinations of levels.
        ConfigError: guidance without labels, or a component that does not fit.
    """

    paper = "Austin et al. 2021 (arXiv:2107.03006)"
    limit: Tensor  # the distribution of the last step, (V + 1,)

    def __init__(
        self,
        spec: DataSpec,
        *,
        backbone: Backbone = "transformer_encoder",
        transition: Annotated[str | dict[str, Any], Component("transition")] = "uniform",
        auxiliary: NonNegative = 0.01,
        conditional: bool | None = None,
        label_dropout: Fraction = 0.1,
        guidance: NonNegative = 1.0,
        patch: Annotated[tuple[int, int], Gt(0)] = (1, 1),
        optimizer: Optimizer = "muon",
    ) -> None:
        super().__init__(spec)
        self.transition: Transition = self.build_component("transition", "transition", method="bound_term")
        self.build_network(self.transition.steps, 1)
        self.register_buffer("limit", self.transition.limit(self.n_tokens), persistent=False)

    # -- objective -----------------------------------------------------------------------------------------------

    def logits(self, tokens: Tensor, t: Tensor) -> Tensor:
        """Noisy tokens (B, 1 + T) at steps (B,) -> logits (B, T, V) of the clean ones, in at least single precision."""
        logits = self.net(torch.cat([tokens[:, :1], self.none + t[:, None], tokens[:, 1:]], 1))[:, 2:]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def clean(self, logits: Tensor) -> Tensor:
        """Probabilities (B, T, V + 1) of the clean tokens; that of the mask is 0."""
        return F.pad(logits.softmax(-1), (0, 1))

    def noisy_nats(
        self, tokens: Tensor, scored: Tensor, u: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """See `DiscreteDiffusion`."""
        first, x = tokens[:, :1], tokens[:, 1:]
        t = (u * self.transition.steps).long().clamp(max=self.transition.steps - 1) + 1
        noise = self.uniform(2, *x.shape, generator=generator)
        x_t = torch.where(scored, self.transition.noisy(x, t, noise, self.limit), x)
        logits = self.logits(torch.cat([first, x_t], 1), t)
        term = self.transition.bound_term(x, x_t, self.clean(logits), t, self.limit) * scored
        bound = self.transition.steps * term
        return bound + self.hparams["auxiliary"] * masked_cross_entropy(logits, x, scored), bound

    # -- sampling ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def denoised(
        self, first: Tensor, times: list[int], noise: Noise, guidance: float | None, temperature: float = 1.0
    ) -> Iterator[Tensor]:
        """Rows (n, 1 + T) after each step from pure noise to data."""
        mode = self.training
        self.eval()
        try:
            shape = len(first), self.length
            log_limit = self.limit.log().expand(*shape, -1)
            x, _ = draw_tokens(log_limit, noise("order")[:, 1:], SamplingParams())
            for number, (t, s) in enumerate(pairwise(times)):
                late, soon = (torch.full((len(first),), step, device=first.device) for step in (t, s))
                logits = self.guided(partial(self.logits, t=late), torch.cat([first[:, None], x], 1), guidance)
                p = self.transition.posterior(x, self.clean(logits / temperature), soon, late, self.limit)
                x, _ = draw_tokens(p.double().log(), noise(f"step {number}")[:, 1:], SamplingParams())
                yield torch.cat([first[:, None], x], 1)
        finally:
            self.train(mode)

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: PositiveInt | None = None,
        guidance: NonNegative | None = None,
        temperature: Positive = 1.0,
        max_new_tokens: PositiveInt | None = None,
    ) -> Tensor:
        """Draw n images, or n texts from their beginnings: token ids (n, T), padded with the end token.

        Args:
            n: number of samples.
            condition: class labels (n,) of images; None draws them at random.
            generator: source of randomness.
            steps: at most those of the transition, which is the default; fewer skip some.
            guidance: weight of classifier-free guidance; 1 is off, None is the model's default.
            temperature: divides the logits of the clean tokens.
            max_new_tokens: of texts; None fills the context.

        Raises:
            DataError: the model is unconditional, or the condition is not n class labels.
            ConfigError: guidance without labels, or too many steps.
        """
        self.check_condition(condition)
        weight, times = self.checked_guidance(guidance), self.transition.times(steps)
        if not self.spec.text:
            y = self.resolve_labels(n, condition, generator) if self.conditional else None
            first = self.first_tokens(y, n)
        else:
            first = torch.full((n,), self.begin, device=self.device)
        noise = uniform_noise(n, 1 + self.length, generator, self.device)
        tokens = deque(self.denoised(first, times, noise, weight, temperature), maxlen=1).pop()
        return self.data(tokens[:, : 1 + (max_new_tokens or self.length)])

    @property
    def max_steps(self) -> int:
        """Steps of the transition."""
        return self.transition.steps

    def states(self, tokens: Tensor, generator: torch.Generator | None) -> Iterator[Tensor]:
        """See `DiscreteDiffusion`."""
        noise = uniform_noise(len(tokens), 1 + self.length, generator, self.device)
        return self.denoised(tokens[:, 0], self.transition.times(None), noise, None)
