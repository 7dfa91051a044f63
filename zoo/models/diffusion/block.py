"""Block diffusion: blocks from left to right, and masked diffusion within a block."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Component, Fraction, NonNegative, PositiveInt
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.diffusion.discrete import masked_cross_entropy
from zoo.models.diffusion.masked import MaskedDiffusion
from zoo.nn.blocks.attention import attention_maps
from zoo.nn.diffusion.masking import choose_hidden, counted_bound, draw_counts
from zoo.nn.diffusion.unmasking import Noise, State, Unmasking
from zoo.nn.networks.components import Backbone
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.sampling_params import SamplingParams

GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, are spread evenly


def first_columns(noise: Noise, end: int, name: str) -> Tensor:
    """Uniform numbers (B, end) of the first positions."""
    return noise(name)[:, :end]


def attention_pattern(length: int, block_size: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Positions (S,) and allowed attention (S, S) of the S = 1 + 2 T tokens that the network reads.

    The row is the first token, the T clean tokens, and the T noisy ones at the same positions (Arriola et al. 2025,
    section 3.2 and figure 6). A clean token attends to clean ones of its block and of earlier blocks. A noisy token
    attends to noisy ones of its block, and to clean ones of earlier blocks. All attend to the first token.

    Args:
        length: T.
        block_size: tokens of a block.
        device: of the result.
    """
    place = torch.arange(1, length + 1, device=device)
    start = torch.zeros(1, dtype=torch.long, device=device)
    position = torch.cat([start, place, place])
    block = torch.cat([start - 1, (place - 1) // block_size, (place - 1) // block_size])
    noisy = torch.arange(1 + 2 * length, device=device) > length
    query, key = block[:, None], block
    to_clean = ~noisy & torch.where(noisy[:, None], key < query, key <= query)
    return position, to_clean | (noisy & noisy[:, None] & (key == query))


@register("model", "block_diffusion")
class BlockDiffusion(MaskedDiffusion):
    """Block diffusion (BD3-LM, Arriola et al. 2025, arXiv:2503.09573): blocks of tokens from left to right.

    The log-probability is the sum of those of the blocks, given earlier ones. Within a block it is masked diffusion, so
    that the tokens of a block are drawn in any order, several at a time. The bound is the sum over blocks of the
    counted bound, see `zoo.nn.diffusion.masking`. Blocks of one token give an autoregressive model, whose bound is
    exact. One block gives masked diffusion. All blocks are trained at once, by a network that reads clean and noisy
    tokens side by side. `loss` is as in `masked_diffusion`. Tokens after a block do not influence it, so masks are not
    filled from both sides.

    Args:
        spec: what the data looks like.
        block_size: tokens of a block; the last one may be shorter.
        backbone: the encoder: transformer_encoder, or one whose `forward` takes `position` and `allowed`.
        masking: see `masked_diffusion`; in each block.
        sampler: default of `sample` and `generate`, in each block: any_order, ancestral, remasking or confidence.
        conditional: see `masked_diffusion`.
        label_dropout: see `masked_diffusion`.
        guidance: see `masked_diffusion`.
        patch: see `masked_diffusion`.
        optimizer: see `masked_diffusion`.

    Raises:
        ZooError: see `masked_diffusion`.
    """

    paper = "Arriola et al. 2025 (arXiv:2503.09573)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        block_size: PositiveInt = 4,
        backbone: Backbone = "transformer_encoder",
        masking: Literal["uniform", "cosine"] = "uniform",
        sampler: Annotated[str | dict[str, Any], Component("sampler")] = "any_order",
        conditional: bool | None = None,
        label_dropout: Fraction = 0.1,
        guidance: NonNegative = 1.0,
        patch: Annotated[tuple[int, int], Gt(0)] = (1, 1),
        optimizer: Optimizer = "muon",
    ) -> None:
        super().__init__(
            spec, backbone=backbone, masking=masking, sampler=sampler, conditional=conditional,
            label_dropout=label_dropout, guidance=guidance, patch=patch, optimizer=optimizer,
        )  # fmt: skip
        self.block_size = block_size
        self.lacks("fill", "export")  # a mask has no right context; each block is a further loop of evaluations

    # -- objective -----------------------------------------------------------------------------------------------

    def block_logits(self, clean: Tensor, noisy: Tensor, length: int) -> Tensor:
        """Logits (B, N, V) of the noisy tokens when clean, in at least single precision.

        Args:
            clean: the first token and those of the data (B, 1 + T), or of the blocks before the noisy one.
            noisy: with masks (B, N): all T, or those of the last block.
            length: T, up to the last noisy token.
        """
        position, allowed = attention_pattern(length, self.block_size, noisy.device)
        place, known = torch.arange(1 + 2 * length, device=noisy.device), clean.shape[1]
        read = torch.cat([place[:known], place[1 + 2 * length - noisy.shape[1] :]])
        logits = self.net(torch.cat([clean, noisy], 1), position=position[read], allowed=allowed[read][:, read])
        return logits[:, known:].to(torch.promote_types(logits.dtype, torch.float32))

    def logits(self, tokens: Tensor) -> Tensor:
        """Tokens (B, 1 + T), clean before the first block with masks -> logits (B, T, V), right up to that block."""
        return self.block_logits(tokens, tokens[:, 1:], tokens.shape[1] - 1)

    def sampling_logits(self, tokens: Tensor) -> Tensor:
        """Tokens (B, 1 + T) up to a block with masks -> logits (B, T, V), zero before this last block."""
        length = tokens.shape[1] - 1
        begin = 1 + (length - 1) // self.block_size * self.block_size
        logits = self.block_logits(tokens[:, :begin], tokens[:, begin:], length)
        return F.pad(logits, (0, 0, begin - 1, 0))

    def blocks(self, x: Tensor) -> Tensor:
        """Values by position (B, T) -> by block (B * blocks, block size), the last one padded with zeros."""
        return F.pad(x, (0, -x.shape[1] % self.block_size)).reshape(-1, self.block_size)

    def noisy_nats(
        self, tokens: Tensor, scored: Tensor, u: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """See `DiscreteDiffusion`; each block has its own number of masks."""
        n, length = scored.shape
        allowed = self.blocks(scored)  # (N, S), N = B * blocks
        lengths, number = allowed.sum(1), len(allowed) // n
        shift = GOLDEN * torch.arange(number, device=u.device)
        levels = ((u[:, None] + shift) % 1).flatten().to(u.dtype)  # (N,), uniform for each block
        bounded = self.hparams["masking"] == "uniform" or not self.training
        counts = draw_counts(lengths, levels, "linear" if bounded else "cosine")
        noise = self.blocks(self.uniform(n, length, generator=generator))
        hidden = choose_hidden(allowed, counts, noise).view(n, -1)[:, :length]
        noisy = tokens[:, 1:].masked_fill(hidden, self.mask_token)
        nats = masked_cross_entropy(self.block_logits(tokens, noisy, length), tokens[:, 1:], hidden)
        bound = counted_bound(self.blocks(nats), lengths, counts).view(n, -1)[:, :length]
        return bound, bound

    def ordered_log_prob(self, x: Tensor, y: Tensor | None = None, order: Tensor | None = None) -> Tensor:
        """See `MaskedDiffusion`; the order goes from block to block.

        Raises:
            ZooError: an order that leaves a block and comes back.
        """
        if order is not None and (torch.div(order, self.block_size, rounding_mode="floor").diff() < 0).any():
            raise ZooError(f"order={order.tolist()}: leaves a block before it is complete. Order within blocks.")
        return super().ordered_log_prob(x, y, order)

    # -- sampling ------------------------------------------------------------------------------------------------

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
        """See `MaskedDiffusion`: one block after another, by a network that reads nothing after the block."""
        log_p = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
        place = torch.arange(tokens.shape[1], device=tokens.device)
        for begin in range(1, tokens.shape[1], self.block_size):
            end = min(begin + self.block_size, tokens.shape[1])
            here = hidden & (place >= begin) & (place < end)
            if not here.any():
                continue
            rest, before = tokens[:, end:], log_p.clone()
            first: Noise = partial(first_columns, noise, end)
            for state, nats in super().unmasked(tokens[:, :end], here[:, :end], sampler, first, params, guidance):
                tokens, log_p = torch.cat([state, rest], 1), before + F.pad(nats, (0, rest.shape[1]))
                yield tokens, log_p

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Attention weights (B, H, 1 + 2 T, 1 + 2 T) of each block of the network, on clean tokens twice."""
        tokens, _ = self.rows(batch.x, batch.y)
        return attention_maps(self.net, lambda: self.logits(tokens))
