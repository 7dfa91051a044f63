"""Decoder-only transformer, which predicts the next token of a text."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Count, DropoutRate, Fraction, NonNegative, Positive, PositiveInt
from zoo.nn.blocks.kv_cache import KVCache, KVCacheDecoder
from zoo.nn.blocks.position_encoding import PositionEncoding
from zoo.nn.blocks.rope_scaling import RopeScaling
from zoo.nn.blocks.transformer_block import TransformerStack
from zoo.nn.blocks.transformer_config import MLPKind, NormKind, NormPlace, TransformerConfig
from zoo.nn.kernels.decode_step import DecodeStep, supported, usable


class Transformer(KVCacheDecoder, TransformerStack):
    """Tokens (B, T) -> logits of the next token (B, T, n_out).

    Args:
        n_in: identifiers that may be read.
        n_out: identifiers that may be predicted, the first of the n_in.
        context: positions.
        shape: of the blocks.
        n_layers: blocks.
        position_encoding: see `TransformerStack`.
        window: see `TransformerStack`.
        theta: see `TransformerStack`.
        rope_scaling: see `TransformerStack`.
        partial_rotary_factor: see `TransformerStack`.
        global_every: see `TransformerStack`.
        window_theta: see `TransformerStack`.
        tie_weights: the head is the embedding (Press & Wolf 2017, 1608.05859).
        scale_embeddings: multiply embeddings by sqrt(d_model) (Vaswani et al. 2017, section 3.4).
        softcap: c tanh(logit / c) instead of a logit; 0 is off.
    """

    end: int | None = None  # token before a text, which attention does not cross; None does not mask documents

    def __init__(
        self,
        n_in: int,
        n_out: int,
        context: int,
        shape: TransformerConfig,
        n_layers: int,
        *,
        position_encoding: PositionEncoding = "rotary",
        window: int = 0,
        theta: float = 10000.0,
        rope_scaling: RopeScaling = "none",
        partial_rotary_factor: float = 1.0,
        global_every: int = 0,
        window_theta: float = 0.0,
        tie_weights: bool = True,
        scale_embeddings: bool = False,
        softcap: float = 0.0,
    ) -> None:
        super().__init__(
            shape, n_layers, context,
            position_encoding=position_encoding, window=window, theta=theta, rope_scaling=rope_scaling,
            partial_rotary_factor=partial_rotary_factor, global_every=global_every, window_theta=window_theta,
        )  # fmt: skip
        self.n_out, self.softcap = n_out, softcap
        self.embedding_scale = shape.d_model**0.5 if scale_embeddings else 1.0
        self.embedding = nn.Embedding(n_in, shape.d_model)
        self.head = None if tie_weights else nn.Linear(shape.d_model, n_out, bias=False)
        self.reset()

    def reset(self) -> None:
        """Initialise all weights; a separate head starts at zero."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        super().reset()
        if self.head is not None:
            nn.init.zeros_(self.head.weight)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T) -> (B, T, n_out); with a cache the tokens follow those that it already holds.

        Raises:
            ZooError: more tokens than the context has positions.
        """
        return self.project(self.hidden_states(tokens, cache))

    def project(self, x: Tensor) -> Tensor:
        """Logits of hidden states: (B, T, D) -> (B, T, n_out)."""
        logits = F.linear(x, self.embedding.weight[: self.n_out]) if self.head is None else self.head(x)
        return self.softcap * (logits / self.softcap).tanh() if self.softcap else logits

    def hidden_states(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Outputs of the last layer, which the head reads: (B, T) -> (B, T, D)."""
        new = tokens.shape[1]
        if cache is not None and self.short_context:
            tokens = cache.to_read(tokens, self.short_context)
        x = self.embedding(tokens)
        features = self.run(
            x if self.embedding_scale == 1 else x * self.embedding_scale,
            first=self._beginnings(tokens, cache),
            cache=cache,
        )
        return features if tokens.shape[1] == new else features[:, -new:]

    def _beginnings(self, tokens: Tensor, cache: KVCache | None) -> Tensor | None:
        """The column with which each token's text begins (B, T); None where all begin with the first."""
        before = None if cache is None else cache.segment_starts(tokens)
        if self.end is None:
            return before
        start = cache.used if cache else 0
        column = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        first = torch.where(tokens == self.end, column, 0).cummax(dim=1).values
        if before is not None:
            first = torch.maximum(first, before)
        if cache is not None:
            cache.first = first[:, -1]
        return first

    # -- IncrementalDecoder

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, KVCache]:
        """Read prompts (B, T), whose rows begin with `padding` (B,) meaningless tokens: next logits (B, n_out)."""
        cache = self.new_cache(len(tokens))
        cache.first = padding
        return self(tokens, cache)[:, -1], cache

    def step(self, tokens: Tensor, state: KVCache) -> Tensor:
        """Read one more token per row (B,): next logits (B, n_out)."""
        if state.step is None:
            state.step = DecodeStep(self) if self.end is None and supported(self) else False
        if not state.step or not usable() or state.used >= self.context:
            return self(tokens[:, None], state)[:, -1]
        for hook in self._forward_pre_hooks.values():  # passive ones, see `supported`
            hook(self, (tokens[:, None], state))
        x = self.embedding(tokens)  # (B, D)
        return self.project(state.step(x if self.embedding_scale == 1 else x * self.embedding_scale, state))


@register("backbone", "transformer")
def transformer(
    n_in: int,
    n_out: int,
    context: int,
    *,
    d_model: PositiveInt = 128,
    n_layers: PositiveInt = 4,
    n_heads: PositiveInt = 4,
    n_kv_heads: Count = 0,
    d_ff: Count = 0,
    position_encoding: PositionEncoding = "rotary",
    rope_theta: Positive = 10000.0,
    rope_scaling: RopeScaling = "none",
    window: Count = 0,
    norm: NormKind = "layernorm",
    norm_eps: NonNegative = 0.0,
    mlp: MLPKind = "relu_squared",
    bias: bool = False,
    dropout: DropoutRate = 0.0,
    tie_weights: bool = True,
    qk_norm: bool = True,
    softcap: NonNegative = 0.0,
    logit_softcap: NonNegative = 0.0,
    d_head: Count = 0,
    attention_scale: NonNegative = 0.0,
    qkv_bias: bool = False,
    qk_norm_gain: bool = False,
    norm_place: NormPlace = "before",
    parallel_residual: bool = False,
    scale_embeddings: bool = False,
    partial_rotary_factor: Fraction = 1.0,
    global_every: Count = 0,
    window_theta: NonNegative = 0.0,
    n_experts: Count = 0,
    n_active_experts: PositiveInt = 2,
    gradient_checkpointing: bool = False,
) -> Transformer:
    """Decoder-only transformer (Radford et al. 2019; Vaswani et al. 2017, 1706.03762).

    Args:
        n_in: tokens that can be read.
        n_out: tokens that can be predicted, the first of the n_in.
        context: positions.
        d_model: width, a multiple of n_heads.
        n_layers: transformer blocks.
        n_heads: attention heads.
        n_kv_heads: heads of keys and values, shared by groups of queries; 0 is n_heads.
        d_ff: hidden width of the MLPs; 0 is 4 d_model, or two thirds of it for the gated kinds.
        position_encoding: how tokens get their position; see `zoo.nn.blocks.transformer_block.TransformerStack`.
        rope_theta: base of the rotary angles.
        rope_scaling: scaling of the rotary angles to longer contexts; see `zoo.nn.blocks.rope_scaling`.
        window: tokens that each position attends to, itself included; 0 is all earlier tokens.
        norm: see `norm_place`.
        norm_eps: added to the variance; 0 is torch's default.
        mlp: activation of the MLPs.
        bias: whether linear layers have a bias.
        dropout: of embeddings, attention weights and branches.
        tie_weights: one matrix for the embedding and the head.
        qk_norm: divide queries and keys by their RMS.
        softcap: c tanh(s / c) instead of an attention score s; 0 is off.
        logit_softcap: the same for logits.
        d_head: width of a head; 0 is d_model / n_heads.
        attention_scale: factor of the attention scores; 0 is d_head^-1/2.
        qkv_bias: whether queries, keys and values have a bias, also without `bias` (Qwen 2).
        qk_norm_gain: normalise queries and keys by `norm`, with a gain per channel of a head (Qwen 3).
        norm_place: norms before every branch, after every residual sum, or before and after every branch (Gemma 2).
        parallel_residual: attention and MLP read the same features (GPT-NeoX).
        scale_embeddings: multiply embeddings by sqrt(d_model).
        partial_rotary_factor: part of each head that rotary positions rotate.
        global_every: with a window, every so many-th block attends to all earlier tokens (Gemma 2: 2); 0 is none.
        window_theta: base of the rotary angles in blocks with a window (Gemma 3); 0 is rope_theta.
        n_experts: MLPs per block, of which a router chooses some per token (Mixtral); 0 is one without a router.
        n_active_experts: MLPs that each token passes through.
        gradient_checkpointing: keep only the input of each block for the backward pass, which computes the rest again
            (Chen et al. 2016, 1604.06174): less memory, about a third more time, the same gradients.

    Raises:
        ZooError: sizes that do not divide.
    """
    config = TransformerConfig(
        d_model,
        n_heads,
        n_kv_heads,
        d_ff=d_ff,
        norm=norm,
        norm_eps=norm_eps,
        mlp=mlp,
        bias=bias,
        qk_norm=qk_norm,
        softcap=softcap,
        dropout=dropout,
        d_head=d_head,
        scale=attention_scale,
        qkv_bias=qkv_bias,
        qk_norm_gain=qk_norm_gain,
        norm_place=norm_place,
        parallel_residual=parallel_residual,
        n_experts=n_experts,
        n_active_experts=n_active_experts,
        gradient_checkpointing=gradient_checkpointing,
    )
    return Transformer(
        n_in,
        n_out,
        context,
        config,
        n_layers,
        position_encoding=position_encoding,
        window=window,
        theta=rope_theta,
        rope_scaling=rope_scaling,
        partial_rotary_factor=partial_rotary_factor,
        global_every=global_every,
        window_theta=window_theta,
        tie_weights=tie_weights,
        scale_embeddings=scale_embeddings,
        softcap=logit_softcap,
    )
