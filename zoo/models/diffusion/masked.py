"""Masked diffusion: a bidirectional network fills hidden tokens of texts or images, in any order."""

from collections import deque
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import Component, Count, Fraction, NonNegative, PositiveInt
from zoo.core.spec import DataSpec
from zoo.models.diffusion.discrete import DiscreteDiffusion, masked_cross_entropy
from zoo.models.given_parts import expanded_mask
from zoo.models.masked.base import MaskFilling, seeded
from zoo.nn.diffusion.build_sampler import build_sampler
from zoo.nn.diffusion.masking import choose_hidden, counted_bound, draw_counts
from zoo.nn.diffusion.unmasking import Noise, State, Unmasking, uniform_noise
from zoo.nn.networks.components import Backbone
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec
from zoo.nn.samplers.sampling_params import SamplingParams
from zoo.nn.samplers.text_stream import Completion


@register("model", "masked_diffusion")
class MaskedDiffusion(MaskFilling, DiscreteDiffusion):
    """Masked diffusion of texts or images: the absorbing case of discrete diffusion.

    A number m from 1 to the L tokens is hidden, and the network predicts them from the others. The mean cross-entropy
    is an unbiased estimate of a bound on -log p per token, see `zoo.nn.diffusion.masking`. The network needs no time:
    the masks tell it. A text is scored after its first token, as by a language model. `loss` is nats per token of a
    text, or nats per image.

    Args:
        spec: what the data looks like.
        backbone: the encoder: transformer_encoder, or a registered one.
        masking: distribution of the number of hidden tokens in training: "uniform" is the bound, and "cosine" hides
            more, as MaskGIT does. The validation always measures the bound.
        sampler: default of `sample`, `generate` and `fill`: ancestral, any_order, remasking or confidence.
        conditional: condition images on class labels; None does so if the data have labels.
        label_dropout: share of a batch that is trained without its label, for guidance.
        guidance: default weight of classifier-free guidance; 1 is off.
        patch: height and width of the rectangle of an image whose pixels are one token.
        optimizer: with its learning rate and schedule; muon takes the matrices of the backbone's blocks.

    Raises:
        ZooError: a patch that does not divide the image or has too many combinations of levels.
        ConfigError: guidance without labels, or a component that does not fit.
    """

    paper = "Sahoo et al. 2024 (arXiv:2406.07524); Shi et al. 2024 (arXiv:2406.04329)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        backbone: Backbone = "transformer_encoder",
        masking: Literal["uniform", "cosine"] = "uniform",
        sampler: Annotated[str | dict[str, Any], Component("sampler")] = "ancestral",
        conditional: bool | None = None,
        label_dropout: Fraction = 0.1,
        guidance: NonNegative = 1.0,
        patch: Annotated[tuple[int, int], Gt(0)] = (1, 1),
        optimizer: Optimizer = "muon",
    ) -> None:
        super().__init__(spec)
        self.build_network()
        self.sampler: Unmasking = self.build_component("sampler", "sampler", method="unmask")
        if not self.sampler.exportable:
            self.lacks("export")
        if spec.text or tuple(patch) != (1, 1):  # a token of a patch may have known and new pixels
            self.lacks("inpaint")

    # -- objective -----------------------------------------------------------------------------------------------

    def logits(self, tokens: Tensor) -> Tensor:
        """Tokens with masks (B, 1 + T) -> logits (B, T, V) of the clean ones, in at least single precision."""
        logits = self.net(tokens)[:, 1:]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def sampling_logits(self, tokens: Tensor) -> Tensor:
        """`logits` for a sampler."""
        return self.logits(tokens)

    def noisy_nats(
        self, tokens: Tensor, scored: Tensor, u: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """See `DiscreteDiffusion`."""
        lengths = scored.sum(1)
        bounded = self.hparams["masking"] == "uniform" or not self.training
        counts = draw_counts(lengths, u, "linear" if bounded else "cosine")
        hidden = choose_hidden(scored, counts, self.uniform(*scored.shape, generator=generator))
        read = torch.cat([tokens[:, :1], tokens[:, 1:].masked_fill(hidden, self.mask_token)], 1)
        nats = masked_cross_entropy(self.logits(read), tokens[:, 1:], hidden)
        bound = counted_bound(nats, lengths, counts)
        return bound, bound

    @torch.no_grad()
    def ordered_log_prob(self, x: Tensor, y: Tensor | None = None, order: Tensor | None = None) -> Tensor:
        """Log-probability of the tokens by the chain rule in one order, in nats (B,), by T evaluations.

        It is exact for sampling in that order. The bound is its mean over all orders.

        Args:
            x: as in `likelihoods`; texts without padding.
            y: as in `likelihoods`.
            order: permutation of the T positions; None is from left to right.
        """
        tokens, scored = self.rows(x, y)
        read, total = tokens.clone(), torch.zeros(len(tokens), device=self.device)
        read[:, 1:] = self.mask_token
        for place in (torch.arange(self.length) if order is None else order).tolist():
            if place >= scored.shape[1]:
                continue
            here = torch.zeros_like(scored)
            here[:, place] = scored[:, place]
            total = total + masked_cross_entropy(self.logits(read), tokens[:, 1:], here).sum(1)
            read[:, 1 + place] = tokens[:, 1 + place]
        return -total

    # -- sampling ------------------------------------------------------------------------------------------------

    def choose_sampler(self, name: str | None, steps: int | None) -> Unmasking:
        """The default sampler, or another one by name; with another number of steps if given."""
        return build_sampler(Unmasking, self.hparams["sampler"] if name is None else name, steps)

    @torch.no_grad()
    def unmasked(
        self,
        tokens: Tensor,
        hidden: Tensor,
        sampler: Unmasking,
        noise: Noise,
        params: SamplingParams,
        guidance: float | None = None,
    ) -> Iterator[State]:
        """States after each step: masks `hidden` among tokens (B, 1 + T) are replaced; see `Unmasking`."""
        mode = self.training
        self.eval()

        def predict(tokens: Tensor) -> Tensor:
            logits = self.guided(self.sampling_logits, tokens, guidance)
            return torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)  # the first token is never drawn

        try:
            yield from sampler.unmask(predict, tokens, hidden, self.mask_token, noise, params)
        finally:
            self.train(mode)

    def masked_rows(self, first: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Rows of masks (n, 1 + T) after first tokens (n,), and which to replace: so many, and the rest stay."""
        masks = torch.full((first.shape[0], self.length), self.mask_token, device=first.device)
        tokens = torch.cat([first[:, None], masks], 1)
        place = torch.arange(1 + self.length, device=first.device)
        return tokens, ((place > 0) & (place <= length)).expand_as(tokens)

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: PositiveInt | None = None,
        sampler: str | None = None,
        guidance: NonNegative | None = None,
        max_new_tokens: PositiveInt | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw n images, or n texts from their beginnings: token ids (n, T), padded with the end token.

        Args:
            n: number of samples.
            condition: class labels (n,) of images; None draws them at random.
            generator: source of randomness.
            steps: of the sampler; None is its default.
            sampler: another one than the model's: ancestral, any_order, remasking, confidence.
            guidance: weight of classifier-free guidance; 1 is off, None is the model's default.
            max_new_tokens: of texts; None fills the context.
            **options: temperature (0 is greedy), top_k, top_p.

        Raises:
            DataError: the model is unconditional, or the condition is not n class labels.
            ConfigError: guidance without labels, or an unknown sampler or option.
        """
        self.check_condition(condition)
        params, chosen = self.sampling_params(options), self.choose_sampler(sampler, steps)
        weight = self.checked_guidance(guidance)
        if not self.spec.text:
            y = self.resolve_labels(n, condition, generator) if self.conditional else None
            first, length = self.first_tokens(y, n), self.length
        else:
            first = torch.full((n,), self.begin, device=self.device)
            length = min(max_new_tokens or self.length, self.length)
        tokens, hidden = self.masked_rows(first, length)
        noise = uniform_noise(n, 1 + self.length, generator, self.device)
        tokens, _ = last(self.unmasked(tokens, hidden, chosen, noise, params, weight))
        return self.data(tokens[:, : 1 + length])

    def inpaint(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: PositiveInt | None = None,
        sampler: str | None = None,
        guidance: NonNegative | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw the values of x (B, *shape) where the mask is True, given the others: all others are known tokens.

        Args:
            x: images or codes; the values under the mask have no effect.
            mask: (B or 1, *shape), or one channel of it.
            condition: class labels (B,); None stands for no class.
            generator: see `sample`.
            steps: see `sample`.
            sampler: see `sample`.
            guidance: see `sample`.
            **options: see `sample`.

        Raises:
            DataError: x, mask or labels that do not fit.
            ConfigError: guidance without labels, or an unknown sampler or option.
        """
        self.check_condition(condition)
        self.spec.x.validate(x)
        params, chosen = self.sampling_params(options), self.choose_sampler(sampler, steps)
        if guidance not in (None, 1) and condition is None:
            raise ConfigError(f"guidance={guidance}: needs a class to guide to. Give condition=LABEL, or leave it out.")
        x = x.to(self.device)
        new = expanded_mask(mask, x)
        tokens, hidden = self.pixels.encode(x), self.pixels.encode(new.to(x.dtype)) > 0
        y = None if condition is None else condition.to(self.device)
        rows = torch.cat([self.first_tokens(y, len(x))[:, None], tokens.masked_fill(hidden, self.mask_token)], 1)
        hidden = torch.cat([torch.zeros_like(hidden[:, :1]), hidden], 1)
        noise = uniform_noise(len(x), 1 + self.length, generator, self.device)
        weight = 1.0 if condition is None else guidance
        rows, _ = last(self.unmasked(rows, hidden, chosen, noise, params, weight))
        return torch.where(new, self.data(rows), x)

    def states(self, tokens: Tensor, generator: torch.Generator | None) -> Iterator[Tensor]:
        """See `DiscreteDiffusion`."""
        noise = uniform_noise(len(tokens), 1 + self.length, generator, self.device)
        hidden = tokens == self.mask_token
        return (state for state, _ in self.unmasked(tokens, hidden, self.sampler, noise, SamplingParams()))

    def export_module(self) -> ExportableSampler:
        """Uniform numbers, and labels if conditional -> data, by the default sampler.

        Its steps are unrolled, so that few steps export faster: `model.sampler.steps=16`.
        """
        size = (1 + self.length,)
        inputs = [InputSpec("order", "uniform", size), InputSpec("token", "uniform", size)]
        if self.conditional:
            inputs.append(InputSpec("label", "class", high=self.spec.n_classes, shares=tuple(self.class_shares)))

        def function(order: Tensor, token: Tensor, y: Tensor | None = None) -> Tensor:
            start = self.none if not self.spec.text else self.begin
            first = torch.full_like(order[:, 0], start, dtype=torch.long) if y is None else self.first_tokens(y, 0)
            tokens, hidden = self.masked_rows(first, self.length)
            noise = {"order": order, "token": token}.__getitem__
            return self.data(last(self.unmasked(tokens, hidden, self.sampler, noise, SamplingParams()))[0])

        return ExportableSampler(function, inputs, self.net)

    # -- texts ---------------------------------------------------------------------------------------------------

    @property
    def max_tokens(self) -> int:
        """Longest row of tokens: the first one, and a context."""
        return 1 + self.length

    def fill_rows(
        self, tokens: Tensor, sampler: Unmasking, params: SamplingParams, generator: torch.Generator | None
    ) -> State:
        """Replace the masks of texts (N, S), negative for padding; and the log-probability of the draws (N,)."""
        rows = torch.full((len(tokens), 1 + self.length), self.mask_token, device=self.device)
        rows[:, : tokens.shape[1]] = tokens.masked_fill(tokens < 0, self.mask_token)
        hidden = torch.zeros_like(rows, dtype=torch.bool)
        hidden[:, : tokens.shape[1]] = tokens == self.mask_token
        hidden[:, 0] = False
        noise = uniform_noise(len(rows), 1 + self.length, generator, self.device)
        rows, log_p = last(self.unmasked(rows, hidden, sampler, noise, params))
        return torch.where(tokens < 0, tokens, rows[:, : tokens.shape[1]]), log_p.sum(1)

    def fill(
        self,
        texts: str | list[str],
        *,
        seed: int | None = None,
        steps: PositiveInt | None = None,
        sampler: str | None = None,
        **options: Any,
    ) -> list[str]:
        """Replace each `[MASK]` in texts by one token, any number of them anywhere.

        Args:
            texts: within the context.
            seed: of the sampling; None uses torch's global generator.
            steps: see `sample`.
            sampler: see `sample`.
            **options: see `sample`.

        Raises:
            ZooError: a text longer than the context, or a model of other data than text.
        """
        chosen, params, generator = self.choose_sampler(sampler, steps), self.sampling_params(options), seeded(seed)
        return self.fill_masks(texts, lambda tokens: self.fill_rows(tokens, chosen, params, generator))

    def generate(
        self,
        prompts: str | list[str],
        *,
        max_new_tokens: Count | None = None,
        stop: list[str] | tuple[str, ...] = (),
        seed: int | None = None,
        beams: int = 1,
        steps: PositiveInt | None = None,
        sampler: str | None = None,
        **options: Any,
    ) -> list[Completion]:
        """Continue texts: append masks, fill them, and cut at the first end token.

        Args:
            prompts: texts; `[MASK]` in them is filled too, but not returned.
            max_new_tokens: None fills the context.
            stop: stop sequences and special tokens, which are left out.
            seed: see `fill`.
            beams: must be 1: generation is not from left to right.
            steps: see `sample`.
            sampler: see `sample`.
            **options: see `sample`.

        Raises:
            ZooError: a prompt longer than the context, or an option that is not supported.
        """
        chosen, params, generator = self.choose_sampler(sampler, steps), self.sampling_params(options), seeded(seed)
        return self.continue_texts(
            prompts, max_new_tokens, stop, beams, lambda tokens: self.fill_rows(tokens, chosen, params, generator)
        )


def last(states: Iterator[State]) -> State:
    """The last state of a sampler."""
    return deque(states, maxlen=1).pop()
