"""Autoregressive models of pixels: images token by token through a causal network, with exact likelihoods."""

import math
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Audio, Codes, Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.base import AutoregressiveModel, marginal_log_prob
from zoo.nn.blocks.attention import attention_maps
from zoo.nn.blocks.patch_tokens import grid_tokens
from zoo.nn.networks.components import Backbone
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.exportable import ExportableSampler, InputSpec


@register("model", "pixel_transformer")
class PixelTransformer(AutoregressiveModel):
    """Autoregressive model of images over a causal network, the backbone.

    Pixels on the data's grid of levels are tokens in raster order (row, column, channel), after a token that begins
    the image. With `patch`, the pixels of a small rectangle are one token; every
    combination of levels has a token, so the likelihood stays exact. Codes on a grid are tokens too, and so are the
    mu-law codes of sounds, in 8 bits per sample. `loss` is nats per image.

    Args:
        spec: what the data looks like.
        backbone: the causal network: transformer, rnn, lstm, gru, or a registered one.
        conditional: begin with a class token.
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
        conditional: bool = False,
        patch: Annotated[tuple[int, int], Gt(0)] = (1, 1),
        optimizer: Optimizer = "muon",
    ) -> None:
        super().__init__(spec)
        self.pixels = grid_tokens(spec.x, (patch[0], patch[1]))
        self.n_tokens, self.n_positions = self.pixels.n_tokens, self.pixels.length
        self.n_in = self.n_tokens + (spec.n_classes if conditional else 1)
        self.net = self.build_backbone(self.n_in, self.n_tokens, self.n_positions)

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
        return self.net(inputs), target

    def _inputs_and_target(self, batch: Batch) -> Batch:
        """Input tokens (B, T), and the token that follows each."""
        x, y = batch
        target = self.tokens(x)
        begin = self.n_tokens + (y if self.conditional else target.new_zeros(len(target)))
        return Batch(torch.cat([begin[:, None], target[:, :-1]], dim=1), target)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per image."""
        loss = self.token_nll(batch)[0].sum(1).mean()
        return {"loss": loss, "bits_per_dim": loss.detach() / (self.spec.size * math.log(2))}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-likelihood in nats (B,); a conditional model without labels averages over the classes."""
        if y is None and self.conditional:
            return marginal_log_prob(self.log_prob, x, self.class_shares)
        y = torch.zeros(len(x), dtype=torch.long, device=x.device) if y is None else y
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
            condition: class labels (n,) of a conditional model.
            generator: source of randomness.
            **options: those of `zoo.nn.samplers.sampling_params.SamplingParams`.
        """
        self.check_condition(condition)
        begin = torch.full((n,), self.n_tokens)
        if self.conditional:
            begin = begin + self.resolve_labels(n, condition, generator).cpu()
        return self.images(self.sample_tokens(begin[:, None].tolist(), self.context, self.sampling(options), generator))

    def export_module(self) -> ExportableSampler:
        """Tokens (B, T) -> logits of the next ones (B, T, V), T up to the context."""
        tokens = InputSpec("tokens", "token", (self.context,), high=self.n_in)
        return ExportableSampler(self.net, [tokens], self.net, start_tokens=range(self.n_tokens, self.n_in))

    # -- training --------------------------------------------------------------------------------------------------

    def charts(self) -> dict[str, list[str]]:
        """Loss, and bits per dimension, which compares between families."""
        return {
            "loss": ["train/loss", "val/loss"],
            "bits per dim": ["train/bits_per_dim", "val/bits_per_dim"],
        }
