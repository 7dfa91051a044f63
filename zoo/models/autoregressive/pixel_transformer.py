"""Autoregressive models of pixels: images token by token through a causal network, with exact likelihoods."""

import math
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Fraction
from zoo.core.spaces import ABSENT, Audio, Codes, Image, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.base import AutoregressiveModel, marginal_log_prob
from zoo.models.given_condition import GivenCondition, rows_without_condition
from zoo.models.results import Visual
from zoo.nn.blocks.attention import attention_maps
from zoo.nn.blocks.patch_tokens import grid_tokens
from zoo.nn.networks.components import Backbone
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec

SEED = 33_000_000  # of samples given captions
SHOWN = 8  # held-out images beside samples


@register("model", "pixel_transformer")
class PixelTransformer(GivenCondition, AutoregressiveModel):
    """Autoregressive model of images over a causal network, the backbone.

    Pixels on the data's grid of levels are tokens in raster order (row, column, channel), after a token that begins
    the image. With `patch`, the pixels of a small rectangle are one token; every
    combination of levels has a token, so the likelihood stays exact. Codes on a grid are tokens too, and so are the
    mu-law codes of sounds, in 8 bits per sample. `loss` is nats per image.

    A caption is further tokens before the image, filled up to the length of the longest caption (Ramesh et al. 2021,
    DALL-E, arXiv:2102.12092). It is given and not predicted, and p(image | caption) is exact. A share of each batch is
    learned without a caption.

    Args:
        spec: what the data looks like.
        backbone: the causal network: transformer, rnn, lstm, gru, or a registered one.
        conditional: true begins with a class token; None begins with the caption, where the data have captions; false
            does neither.
        label_dropout: share of a batch that is trained without its caption.
        patch: height and width of the rectangle whose pixels are one token.
        optimizer: with its learning rate and schedule; muon takes the matrices of the backbone's blocks.

    Raises:
        ZooError: a patch that does not divide the image or has too many combinations of levels.
    """

    accepts = (Image, Codes, Audio)
    paper = "Chen et al. 2020 (image GPT); van den Oord et al. 2016 (PixelRNN, arXiv:1601.06759)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        backbone: Backbone = "transformer",
        conditional: bool | None = None,
        label_dropout: Fraction = 0.1,
        patch: Annotated[tuple[int, int], Gt(0)] = (1, 1),
        optimizer: Optimizer = "muon",
    ) -> None:
        super().__init__(spec)
        self.pixels = grid_tokens(spec.x, (patch[0], patch[1]))
        self.n_tokens, self.n_positions = self.pixels.n_tokens, self.pixels.length
        self.n_in = self.n_tokens + (spec.n_classes if conditional else 1)
        self.n_words = 0  # of the captions, each filled up to this number
        if conditional is None and isinstance(spec.condition, Tokens):
            self.given, self.n_words, self.words = spec.condition, spec.condition.length, self.n_in
            self.n_in += spec.condition.vocab_size + 1  # the last one fills captions
        self.lacks("visuals" if self.given is None else "export")
        self.net = self.build_backbone(self.n_in, self.n_tokens, self.n_words + self.n_positions)

    @property
    def context(self) -> int:
        """Tokens (T,) of one image."""
        return self.n_positions

    # -- images and tokens ---------------------------------------------------------------------------------------

    def tokens(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1], or codes (B, *grid), as tokens (B, T)."""
        return self.pixels.encode(x)

    def images(self, tokens: Tensor) -> Tensor:
        """Inverse of `tokens`."""
        return self.pixels.decode(tokens)

    # -- likelihood ------------------------------------------------------------------------------------------------

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of every token (B, T, V), and the tokens (B, T)."""
        inputs, target = self._inputs_and_target(batch)
        return self.net(inputs)[:, self.n_words :], target

    def _inputs_and_target(self, batch: Batch) -> Batch:
        """Input tokens, the caption first (B, W + T), and the token that follows each of the last (B, T)."""
        x, y = batch
        target = self.tokens(x)
        return Batch(torch.cat([self.prefix(y, len(target)), target[:, :-1]], dim=1), target)

    def prefix(self, y: Tensor | None, n: int) -> Tensor:
        """Tokens before n images (n, W + 1), given class labels (n,), captions (n, W), or None for no captions."""
        begin = torch.full((n, 1), self.n_tokens, device=self.device)
        if self.given is None:
            return begin + y[:, None] if self.conditional and y is not None else begin
        y = torch.full((n, self.n_words), ABSENT, device=self.device) if y is None else y
        words = torch.where(y < 0, self.n_in - 1, self.words + y)
        return torch.cat([words, begin], 1)

    def dropped(self, y: Tensor) -> Tensor:
        """Captions (B, W), in training with some left out."""
        if not self.training or not self.hparams["label_dropout"]:
            return y
        rows = rows_without_condition(len(y), self.hparams["label_dropout"], y.device)
        return y.masked_fill(rows[:, None], ABSENT)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per image."""
        if self.given is not None:
            batch = Batch(batch.x, self.dropped(batch.y))
        loss = self.token_nll(batch)[0].sum(1).mean()
        return {"loss": loss, "bits_per_dim": loss.detach() / (self.spec.size * math.log(2))}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-likelihood in nats (B,), given class labels (B,) or captions (B, W).

        Without labels, a model of classes averages over them. Without captions, none is the condition.
        """
        if y is None and self.conditional:
            return marginal_log_prob(self.log_prob, x, self.class_shares)
        y = torch.full((len(x), self.n_words), ABSENT, device=x.device) if y is None else y
        return -self.token_nll(Batch(x, y))[0].sum(1)

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Attention weights (B, H, T, T) of each block."""
        inputs = self._inputs_and_target(batch).x
        return attention_maps(self.net, lambda: self.net(inputs))

    # -- sampling --------------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Images (n, C, H, W).

        Args:
            n: number of images.
            condition: class labels (n,) of a conditional model; or captions (n, W), see `text_condition`.
            generator: source of randomness.
            **options: those of `zoo.nn.samplers.sampling_params.SamplingParams`.
        """
        y = self.resolve_condition(n, condition, generator)
        rows = self.prefix(y, n).tolist()
        return self.images(self.sample_tokens(rows, self.context, self.sampling(options), generator))

    def export_module(self) -> ExportableSampler:
        """Tokens (B, T) -> logits of the next ones (B, T, V), T up to the context."""
        tokens = InputSpec("tokens", "token", (self.context,), high=self.n_in)
        return ExportableSampler(self.net, [tokens], self.net, start_tokens=range(self.n_tokens, self.n_in))

    def visuals(self, batch: Batch) -> Iterator[Visual]:
        """Yield held-out images, and below each a sample given its caption."""
        x, y = batch.x[:SHOWN], batch.y[:SHOWN]
        made = self.sample(len(x), condition=y, generator=torch.Generator().manual_seed(SEED))
        yield Visual("captions", self.spec.x, torch.cat([x, made.to(x)]), len(x), ("data", "model"))

    # -- training --------------------------------------------------------------------------------------------------

    def charts(self) -> dict[str, list[str]]:
        """Loss, and bits per dimension, which compares between families."""
        return {
            "loss": ["train/loss", "val/loss"],
            "bits per dim": ["train/bits_per_dim", "val/bits_per_dim"],
        }
