"""Transformer blocks, which join norms, attention and MLPs, and a stack of blocks."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.nn.blocks.attention import Attention, AttentionInputs
from zoo.nn.blocks.constants import FixedConstants
from zoo.nn.blocks.int4 import Int4Linear
from zoo.nn.blocks.int8 import Int8Linear
from zoo.nn.blocks.kv_cache import KVCache
from zoo.nn.blocks.mlp import make_mlp
from zoo.nn.blocks.norms import make_norm
from zoo.nn.blocks.position_encoding import (
    NUM_BUCKETS,
    PositionEncoding,
    alibi_slopes,
    relative_bucket,
    rotary_angles,
    rotary_rates,
    rotation,
    sinusoidal,
)
from zoo.nn.blocks.rope_scaling import RopeScaling
from zoo.nn.blocks.transformer_config import TransformerConfig
from zoo.nn.kernels.cpu_dropout import Dropout

Memory = tuple[list[tuple[Tensor, Tensor]], Tensor]  # keys and values per layer, and their mask


class Block(nn.Module):
    """Residual self-attention, optional cross-attention (`cross`), and MLP."""

    def __init__(self, config: TransformerConfig, cross: bool = False) -> None:
        super().__init__()
        self.post_norm, self.parallel = config.norm_place == "after", config.parallel_residual

        def norm() -> nn.Module:
            return make_norm(config.norm, config.d_model, config.norm_eps)

        self.norm1, self.norm2 = norm(), norm()
        self.attention = Attention(config)
        self.norm_cross = norm() if cross else None
        self.cross = Attention(config) if cross else None
        self.mlp = make_mlp(config)
        both = config.norm_place == "both"
        self.norm1_after, self.norm2_after = (norm(), norm()) if both else (nn.Identity(), nn.Identity())
        self.drop = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        inputs: AttentionInputs,
        cache: KVCache | None = None,
        layer: int = 0,
        memory: Memory | None = None,
    ) -> Tensor:
        """(B, T, d) -> (B, T, d)."""
        if self.post_norm:
            x = self.norm1(x + self.drop(self.attention(x, inputs, cache, layer)))
            if self.cross is not None and self.norm_cross is not None and memory is not None:
                x = self.norm_cross(x + self.drop(self._cross_attend(x, layer, memory)))
            return self.norm2(x + self.drop(self.mlp(x)))
        before = x
        x = x + self.drop(self.norm1_after(self.attention(self.norm1(x), inputs, cache, layer)))
        if self.cross is not None and self.norm_cross is not None and memory is not None:
            x = x + self.drop(self._cross_attend(self.norm_cross(x), layer, memory))
        return x + self.drop(self.norm2_after(self.mlp(self.norm2(before if self.parallel else x))))

    def _cross_attend(self, x: Tensor, layer: int, memory: Memory) -> Tensor:
        assert self.cross is not None
        read, mask = memory
        return self.cross(x, AttentionInputs(None, mask, False), None, layer, read[layer])


def output_like(layer: nn.Module) -> Tensor:
    """A tensor of the type and device of a linear layer's outputs; quantised layers have the type of their input."""
    if isinstance(layer, (Int8Linear, Int4Linear)):
        return torch.empty(0, device=next(layer.buffers()).device)
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight


def reset_blocks(blocks: nn.ModuleList) -> None:
    """Reinitialise matrices: normal with standard deviation 1 / sqrt(fan-in).

    The last matrix of every branch is zero, so that a deep stack starts as the identity.
    """
    for name, module in blocks.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.0 if name.endswith("out") else module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class TransformerStack(FixedConstants):
    """Embedded tokens (B, T, d) -> features (B, T, d): position encoding, blocks, final norm.

    Args:
        config: configuration of the blocks.
        n_layers: number of blocks.
        context: maximum length.
        position_encoding: "learned" or "sinusoidal" (added to the embeddings), "rotary" (rotates queries and keys),
            "learned_rotary" (both), "alibi" or "relative" (fixed or learned bias of the scores).
        window: attend only to the last `window` positions, including the same one; 0 is all.
        causal: attend only to the same and earlier positions.
        cross: add cross-attention to a memory.
        theta: base of rotary angles.
        rope_scaling: scaling of rotary angles, see `zoo.nn.blocks.rope_scaling`.
        partial_rotary_factor: part of the channels of each head that rotates (GPT-NeoX, 2204.06745).
        global_every: every `global_every`-th block attends to all positions in spite of the window; 0 is none.
        window_theta: base of the angles, without scaling, in blocks with the window; 0 is that of the other blocks.
        norm_embeddings: normalise embeddings; None is with post-norm alone.

    Raises:
        ZooError: rotary positions with an odd number of rotating channels.
    """

    def __init__(
        self,
        config: TransformerConfig,
        n_layers: int,
        context: int,
        *,
        position_encoding: PositionEncoding = "rotary",
        window: int = 0,
        causal: bool = True,
        cross: bool = False,
        theta: float = 10000.0,
        rope_scaling: RopeScaling = "none",
        partial_rotary_factor: float = 1.0,
        global_every: int = 0,
        window_theta: float = 0.0,
        norm_embeddings: bool | None = None,
    ) -> None:
        super().__init__()
        if "rotary" in position_encoding and config.head % 2:
            raise ZooError(
                f"d_model={config.d_model}: must divide into n_heads={config.n_heads} heads of an even width. "
                f"Choose a multiple of {2 * config.n_heads}, or another encoding."
            )
        rotary = int(config.head * partial_rotary_factor)
        if "rotary" in position_encoding and (rotary % 2 or not rotary):
            raise ZooError(
                f"partial_rotary_factor={partial_rotary_factor:g}: {rotary} of {config.head} channels would rotate. "
                f"Choose a part that gives an even number, such as {max(rotary // 2, 1) * 2 / config.head:g}."
            )
        self.config, self.context, self.window, self.causal = config, context, window, causal
        self.global_every = global_every if window else 0
        self.position_embedding = nn.Embedding(context, config.d_model) if "learned" in position_encoding else None
        self.relative_bias = nn.Embedding(NUM_BUCKETS, config.n_heads) if position_encoding == "relative" else None
        self.sinusoids: Tensor | None
        sinusoids = (
            sinusoidal(context, config.d_model) * 0.02 if position_encoding == "sinusoidal" else None
        )  # as embeddings
        self.register_buffer("sinusoids", sinusoids, persistent=False)
        self.angles: Tensor | None
        rates, self.rotary_factor, *switch = registry.build(
            "rope_scaling", rope_scaling, rotary_rates(rotary, theta), theta, where="model.backbone.rope_scaling"
        )
        # Longest text with the first of two sets of angles, (2, context, R / 2); 0 is one set, (context, R / 2).
        self.short_context: int = switch[0] if switch and "rotary" in position_encoding else 0
        angles = None
        if "rotary" in position_encoding:
            each = [rotary_angles(context, part) for part in rates] if self.short_context else []
            angles = torch.stack(each) if each else rotary_angles(context, rates)
        self.register_buffer("angles", angles, persistent=False)
        self.window_angles: Tensor | None
        near = rotary_angles(context, rotary_rates(rotary, window_theta)) if window_theta and window else None
        self.register_buffer("window_angles", None if angles is None else near, persistent=False)
        self.slopes: Tensor | None
        slopes = alibi_slopes(config.n_heads) if position_encoding == "alibi" else None
        self.register_buffer("slopes", slopes, persistent=False)
        self.drop = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, cross) for _ in range(n_layers))
        # Post-norm stacks have `norm` after the embeddings, others at the end.
        post = config.norm_place == "after"
        self.norm = make_norm(config.norm, config.d_model, config.norm_eps)
        if post and norm_embeddings is False:
            self.norm = nn.Identity()
        both = norm_embeddings and not post
        self.norm_embedding = make_norm(config.norm, config.d_model, config.norm_eps) if both else None

    def reset(self) -> None:
        """Reinitialise all weights: embeddings with standard deviation 0.02, and blocks by `reset_blocks`."""
        for table in (self.position_embedding, self.relative_bias):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)
        reset_blocks(self.blocks)

    def new_cache(self, batch: int) -> KVCache:
        """Empty cache, which grows up to the context."""
        key: Any = self.blocks[0].attention.key  # type: ignore[union-attr]
        return KVCache(len(self.blocks), batch, self.config, self.context, output_like(key))

    def precompute_cross_kv(self, features: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Cross-attention keys and values of another stack's features (B, S, d), per layer."""
        return [block.cross.project_kv(features) for block in self.blocks]  # type: ignore[union-attr,operator]

    def run(
        self,
        x: Tensor,
        *,
        first: Tensor | None = None,
        real: Tensor | None = None,
        cache: KVCache | None = None,
        memory: Memory | None = None,
        position: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Embedded tokens to features (B, T, d).

        Args:
            x: (B, T, d); with a cache, the tokens that follow the cached ones.
            first: (B, T) column where each token's own text starts; earlier columns are masked, and positions count
                from it. None is 0.
            real: (B, S), True for tokens and False for padding, if not `causal`; None is all.
            cache: keys and values of earlier columns, extended by those of x.
            memory: see `precompute_cross_kv`, and a mask (B, 1, 1, S).
            position: of each token (T,), where tokens share positions; not with `causal`. None counts them.
            allowed: (T, S), True where a token may attend, if not `causal`; None is everywhere.

        Raises:
            ZooError: more tokens than the context.
        """
        length, start = x.shape[1], cache.used if cache else 0
        if position is None and start + length > self.context:
            raise ZooError(
                f"sequence of {start + length} tokens: it is longer than the context of {self.context}. "
                f"Shorten it, or train with a longer context (data.context={start + length})."
            )
        column = torch.arange(start, start + length, device=x.device) if position is None else position
        position = column if first is None else (column - first).clamp(min=0)  # (T,) or (B, T)
        if self.position_embedding is not None:
            x = x + self.position_embedding(position)
        elif self.sinusoids is not None:
            x = x + self.sinusoids[position].to(x.dtype)
        if self.norm_embedding is not None:
            x = self.norm_embedding(x)
        x = self.drop(self.norm(x) if self.config.norm_place == "after" else x)
        place = (start, column, position, first, real, cache is not None, x.dtype, allowed)
        inputs = self._attention_inputs(*place, window=self.window)
        everywhere = self._attention_inputs(*place, window=0) if self.global_every else inputs
        recompute = self.config.gradient_checkpointing and cache is None and torch.is_grad_enabled()
        for layer, block in enumerate(self.blocks):
            every = self.global_every and (layer + 1) % self.global_every == 0
            given = (x, everywhere if every else inputs, cache, layer, memory)
            x = checkpoint(block, *given, use_reentrant=False) if recompute else block(*given)
        if cache is not None:
            cache.used += length
        return x if self.config.norm_place == "after" else self.norm(x)

    def _attention_inputs(
        self,
        start: int,
        column: Tensor,
        position: Tensor,
        first: Tensor | None,
        real: Tensor | None,
        cached: bool,
        dtype: torch.dtype,
        allowed: Tensor | None,
        window: int,
    ) -> AttentionInputs:
        angles, factor = self.angles, self.rotary_factor
        if window and self.window_angles is not None:
            angles, factor = self.window_angles, 1.0
        turn = None
        if angles is not None:
            turned = angles[self._is_long(position, first, start), position] if angles.ndim == 3 else angles[position]
            turn = rotation(turned if position.ndim == 1 else turned[:, None], factor)
        keys = torch.arange(start + len(column), device=column.device) if cached else column  # (S,)
        bias = self._bias(keys - column[:, None], dtype)
        if not self.causal:
            mask = None if real is None else real[:, None, None]  # (B, 1, 1, S)
            if allowed is not None:
                mask = allowed[None, None] if mask is None else mask & allowed  # (B or 1, 1, T, S)
            if bias is not None:
                mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
            return AttentionInputs(turn, mask, False)
        # Fast path without a mask: a whole text, or one more token. `length` may be symbolic in exports.
        if first is None and bias is None and not window and not (start and len(column) > 1):
            return AttentionInputs(turn, None, not cached or len(column) > 1)
        mask = keys <= column[:, None]  # (T, S)
        if window:
            mask &= keys > column[:, None] - window
        if first is not None:  # padding attends to itself: a softmax row must not be empty
            mask = (mask & (keys >= first[..., None])) | (keys == column[:, None])  # (B, T, S)
            mask = mask[:, None]
        mask = mask if bias is None else bias.masked_fill(~mask, -torch.inf)
        return AttentionInputs(turn, mask, True)

    def _is_long(self, position: Tensor, first: Tensor | None, start: int) -> Tensor:
        """1 for each token of a text that is longer than `short_context`, else 0: (T,) or (B, T).

        Args:
            position: in its text.
            first: column where each token's text starts; None is 0.
            start: columns before these tokens.
        """
        last = position.amax(-1, keepdim=True)
        if first is not None:  # several texts in a row
            columns = position.new_zeros(len(first), start + first.shape[1])
            last = columns.scatter_reduce(1, first, position, "amax").gather(1, first)
        return (last >= self.short_context).long().expand_as(position)

    def _bias(self, distance: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Score bias (1, H, T, S) by distance (T, S), negative for earlier keys; None without one."""
        if self.slopes is not None:
            return -(self.slopes[:, None, None] * distance.abs())[None].to(dtype)
        if self.relative_bias is not None:
            return self.relative_bias(relative_bucket(distance, self.causal)).permute(2, 0, 1)[None]
        return None
