"""Base class of diffusion over discrete values: texts, codes, and images as tokens of their levels."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.counted import counted
from zoo.core.errors import ConfigError, ZooError
from zoo.core.spaces import ABSENT, Codes, Image, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.models.given_condition import rows_without_condition
from zoo.models.masked.base import before_padding
from zoo.models.results import Likelihood, Visual
from zoo.models.tokenizer_mixin import TokenizerMixin
from zoo.nn.blocks.attention import Attention, attention_maps
from zoo.nn.blocks.patch_tokens import grid_tokens
from zoo.nn.diffusion.times import stratified
from zoo.nn.optim.muon import hidden_layers

SEED = 70_000_000  # of noise outside training
BOUND_DRAWS = 8  # noise levels for each sample in the bound
BINS = 4  # noise levels whose losses are logged apart
STEP_COUNTS = (1, 2, 4, 8, 16)  # of samples on the dashboard


class DiscreteDiffusion(TokenizerMixin, Model):
    """A network that predicts clean tokens from noisy ones, with a bound on the likelihood.

    A sample is a row of tokens after a first one, which is given: the token before a text, or the class of an image.
    Codes on a grid are treated as the pixels of an image.
    Of a text with padding, the tokens after the end are masks, which is a marginal of the model. A subclass writes
    `noisy_nats` and `sample`, and has the settings `backbone`, `conditional`, `label_dropout`, `guidance` and `patch`.

    Args:
        spec: what the data looks like.
    """

    accepts = (Tokens, Image, Codes)
    net: nn.Module

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        h: Any = self.hparams
        self.tokenizer = None
        if not spec.text:
            self.pixels = grid_tokens(spec.x, (h["patch"][0], h["patch"][1]))
            self.n_tokens, self.length = self.pixels.n_tokens, self.pixels.length
            self.conditional = bool(spec.n_classes) if h["conditional"] is None else self.conditional
            firsts = (spec.n_classes if self.conditional else 0) + 1  # classes, and none of them
            self.lacks("generate", "fill")
        else:
            self.n_tokens, self.length, firsts = spec.tokens.vocab_size, spec.size, 0
            self.conditional = False
            self.load_tokenizer(spec)
            if self.tokenizer is None:
                self.lacks("generate", "fill")
        self.lacks("token_loss")  # of one noise level: most tokens are not scored
        self.mask_token = self.n_tokens
        self.none = self.n_tokens + firsts  # the first token of an image without a class
        if h["guidance"] != 1 and not self.conditional:
            raise ConfigError(f"model.guidance={h['guidance']}: the model is unconditional. Leave it out.")

    def build_network(self, more_tokens: int = 0, more_positions: int = 0) -> None:
        """Build the backbone, for so many token ids beside data, mask and classes, and positions beside the first."""
        given = self.none + 1 + more_tokens, self.n_tokens, self.length + 1 + more_positions
        self.net = self.build_component("backbone", "backbone", *given, method="features")
        self.net.padded = False  # type: ignore[assignment]  # texts have masks in place of padding
        if by_frames := hasattr(self.net, "set_frames"):
            self.net.set_frames(self.spec.x.frames if isinstance(self.spec.x, Codes) else 0)  # type: ignore[operator]
        if by_frames or not any(isinstance(module, Attention) for module in self.net.modules()):
            self.lacks("attention")  # between all tokens

    # -- data and tokens -----------------------------------------------------------------------------------------

    def rows(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens (B, 1 + T) after the first one, and which of the T are scored (B, T).

        Args:
            x: images with classes y (B,), or texts with the next tokens y (B, T), negative where they are not scored.
            y: None for images without classes, and for the beginnings of texts.
        """
        if not self.spec.text:
            tokens = self.pixels.encode(x)
            first = self.first_tokens(y if self.conditional else None, len(x))
            return torch.cat([first[:, None], tokens], 1), torch.ones_like(tokens, dtype=torch.bool)
        if y is None:
            x, y = F.pad(x[:, :-1], (1, 0), value=self.begin), x
        scored = y >= 0
        later = torch.where(scored, y, torch.cat([x[:, 1:], y[:, -1:]], 1))
        later = later.masked_fill(~before_padding(y), self.mask_token)
        return torch.cat([x[:, :1], later], 1), scored

    def first_tokens(self, y: Tensor | None, n: int) -> Tensor:
        """First tokens of images of classes y (B,), or of n images without."""
        if y is None:
            return torch.full((n,), self.none, device=self.device)
        return self.n_tokens + 1 + y

    def data(self, tokens: Tensor) -> Tensor:
        """Rows of tokens (B, 1 + T) -> images, or texts (B, T) padded with the end token."""
        if not self.spec.text:
            return self.pixels.decode(tokens[:, 1:])
        ends = torch.isin(tokens[:, 1:], torch.tensor(self.ends, device=tokens.device))
        return tokens[:, 1:].masked_fill(ends.cumsum(1) > 0, self.ends[0])

    @property
    def begin(self) -> int:
        """The token before a text."""
        return self.n_tokens - 1 if self.tokenizer is None else self.tokenizer.begin

    @property
    def ends(self) -> list[int]:
        """All tokens that end a text."""
        return [self.n_tokens - 1] if self.tokenizer is None else self.tokenizer.ends

    def dropped(self, first: Tensor) -> Tensor:
        """First tokens (B,), in training with those of some rows replaced by "no class"."""
        share = self.hparams["label_dropout"]
        if not (self.conditional and self.training and share):
            return first
        return first.masked_fill(rows_without_condition(len(first), share, first.device), self.none)

    def guided(self, logits: Any, tokens: Tensor, guidance: float | None) -> Tensor:
        """Logits with classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598): u + w (c - u).

        Args:
            logits: tokens (B, 1 + T) -> logits (B, T, V).
            tokens: with classes.
            guidance: w; None is the model's default.
        """
        weight = self.hparams["guidance"] if guidance is None else guidance
        given: Tensor = logits(tokens)
        if weight == 1 or not self.conditional:
            return given
        free = logits(torch.cat([torch.full_like(tokens[:, :1], self.none), tokens[:, 1:]], 1))
        return free + weight * (given - free)

    def checked_guidance(self, guidance: float | None) -> float | None:
        """The weight, for a model with classes.

        Raises:
            ConfigError: guidance without classes.
        """
        if guidance not in (None, 1) and not self.conditional:
            raise ConfigError(f"guidance={guidance}: the model is unconditional. Leave it out.")
        return guidance

    # -- objective -----------------------------------------------------------------------------------------------

    def noisy_nats(
        self, tokens: Tensor, scored: Tensor, u: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """The objective, and an estimate of the bound on -log p, in nats by position, both (B, T).

        Args:
            tokens: the first one and those of the data (B, 1 + T).
            scored: tokens to score (B, T).
            u: uniform numbers (B,), which choose the noise levels.
            generator: of the noise, on the CPU; None draws on the device.
        """
        raise NotImplementedError

    def uniform(self, *shape: int, generator: torch.Generator | None) -> Tensor:
        """Uniform numbers on the model's device, from a generator on the CPU or from the device's own."""
        place = self.device if generator is None else torch.device("cpu")
        return torch.rand(*shape, generator=generator, device=place).to(self.device)

    def terms(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Objective and estimate of the bound by position, and which are scored, all (B, T); noise levels (B,)."""
        tokens, scored = self.rows(batch.x, batch.y)
        tokens = torch.cat([self.dropped(tokens[:, 0])[:, None], tokens[:, 1:]], 1)
        u = stratified(len(tokens), generator, self.device if generator is None else "cpu").to(self.device)
        return *self.noisy_nats(tokens, scored, u, generator), scored, u

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Texts: nats per token. Images: nats per image, and the bound in bits per dimension."""
        nats, bound, scored, _ = self.terms(batch)
        if self.spec.text:
            return {"loss": nats.sum() / scored.sum().clamp(min=1)}
        bits = bound.detach().sum(1).mean() / (self.spec.size * math.log(2))
        return {"loss": nats.sum(1).mean(), "bits_per_dim": bits}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the bound, also by quarters of the noise levels, with the same noise at every validation."""
        generator = torch.Generator().manual_seed(SEED + batch_idx)
        _, bound, scored, u = self.terms(batch, generator)
        size = scored.sum(1).clamp(min=1) if self.spec.text else torch.ones_like(u)
        for index in range(BINS):  # more noise has larger u
            inside = (u * BINS).long().clamp(max=BINS - 1) == index
            if number := int(inside.sum()):
                each = (bound.sum(1) / size)[inside].mean()
                self.log_epoch_mean({f"val/loss_noise_{index + 1}_of_{BINS}": each}, number)
        if self.spec.text:
            self.log_token_means(bound, batch.y)
            return
        nats = bound.sum(1).mean()
        bits = nats / (self.spec.size * math.log(2))
        self.log_epoch_mean({"val/loss": nats, "val/bits_per_dim": bits}, len(batch))

    # -- likelihoods ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def bound(self, x: Tensor, y: Tensor | None = None, draws: int = BOUND_DRAWS) -> Tensor:
        """Estimate of the bound on -log p(x) in nats by position, (B, T), from so many noise levels for each sample.

        Raises:
            ZooError: a conditional model without classes.
        """
        if self.conditional and y is None:
            raise ZooError("y=None: the model is conditional. Pass the class labels of the data.")
        tokens, scored = self.rows(x, y)
        u = torch.rand(len(x), device=self.device)
        levels = [(u + index) / draws for index in range(draws)]  # one in each of equal intervals
        return torch.stack([self.noisy_nats(tokens, scored, level, None)[1] for level in levels]).mean(0)

    def likelihoods(self, x: Tensor, y: Tensor | None = None, *, k: int = 1) -> tuple[Likelihood, ...]:
        """The bound on the log-probability of the tokens; k times as many draws make it less noisy, and not tighter."""
        value = -self.bound(x, y, BOUND_DRAWS * k).sum(1)
        return (Likelihood(value, "discrete", exact=False, name="nll_bound"),)

    def token_nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Estimate of the bound in nats, by target token of a text (B, T), and the targets."""
        return self.bound(batch.x, batch.y), batch.y

    # -- pictures and training -----------------------------------------------------------------------------------

    def states(self, tokens: Tensor, generator: torch.Generator | None) -> Iterator[Tensor]:
        """Tokens (B, 1 + T) after each step of the default sampler."""
        raise NotImplementedError

    @property
    def max_steps(self) -> int:
        """The most steps of a sampler that make a difference: one for each token."""
        return self.length

    def visuals(self, batch: Batch) -> Iterator[Visual]:
        """Images while they are sampled, one row per sample, masks grey; and samples by 1, 2, 4, 8 and 16 steps."""
        if not isinstance(self.spec.x, Image):
            return
        n, columns = 8, 8
        y = torch.arange(n, device=self.device) % self.spec.n_classes if self.conditional else None
        masks = torch.full((n, self.length), self.mask_token, device=self.device)
        tokens = torch.cat([self.first_tokens(y, n)[:, None], masks], 1)
        states = [tokens, *self.states(tokens, torch.Generator().manual_seed(SEED))]
        shown = torch.stack([states[round(i)] for i in torch.linspace(0, len(states) - 1, columns).tolist()], 1)
        shown = shown.flatten(0, 1)[:, 1:]
        unknown = self.pixels.decode((shown == self.mask_token).long() * (self.n_tokens - 1))
        x = self.pixels.decode(shown.clamp(max=self.n_tokens - 1))
        yield Visual("unmasking", self.spec.x, torch.where(unknown > 0, 0.5, x), columns)
        counts = [steps for steps in STEP_COUNTS if steps <= self.max_steps]
        rows = [
            self.sample(n, condition=y, generator=torch.Generator().manual_seed(SEED), steps=steps) for steps in counts
        ]
        yield Visual("samples_by_steps", self.spec.x, torch.cat(rows), n, [counted(steps, "step") for steps in counts])

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Attention weights (B, H, T, T) of each block, on clean tokens."""
        tokens, _ = self.rows(batch.x, batch.y)
        return attention_maps(self.net, lambda: self.net(tokens))

    def hidden_layers(self) -> list[nn.Module]:
        """The backbone's blocks."""
        return hidden_layers(self.net)

    def charts(self) -> dict[str, list[str]]:
        """Objective and bound, and units that compare between families."""
        bits = {"bits per dim": ["train/bits_per_dim", "val/bits_per_dim"]}
        if self.spec.text:
            bits = {"bits per byte": ["val/bits_per_byte"]}
        parts = [f"val/loss_noise_{index + 1}_of_{BINS}" for index in range(BINS)]
        return {"loss": ["train/loss", "val/loss"], **bits, "loss by noise level": parts}


def masked_cross_entropy(logits: Tensor, tokens: Tensor, hidden: Tensor) -> Tensor:
    """-log p in nats of the hidden tokens, 0 elsewhere, (B, T), from logits (B, T, V)."""
    target = tokens.masked_fill(~hidden, ABSENT)
    logits = logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, target.flatten(), ignore_index=ABSENT, reduction="none").view_as(target)
