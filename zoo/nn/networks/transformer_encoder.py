"""Encoder-only transformer, in which every token attends to all others."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Count, DropoutRate, NonNegative, PositiveInt
from zoo.nn.blocks.norms import make_norm
from zoo.nn.blocks.position_encoding import PositionEncoding
from zoo.nn.blocks.transformer_block import TransformerStack
from zoo.nn.blocks.transformer_config import MLPKind, NormKind, TransformerConfig


class MaskedHead(nn.Module):
    """Features (..., d) -> logits (..., n_out): a layer and a norm before the embedding's transpose.

    Devlin et al. 2018 (BERT, 1810.04805), in its published code.

    Args:
        config: of the blocks.
        n_out: identifiers that may be predicted, the first of the embedding's.
    """

    def __init__(self, config: TransformerConfig, n_out: int) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_model)
        self.norm = make_norm(config.norm, config.d_model, config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(n_out))
        nn.init.normal_(self.up.weight, std=config.d_model**-0.5)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """With the embedding's weights (n_in, d)."""
        return F.linear(self.norm(F.gelu(self.up(x))), embedding[: len(self.bias)], self.bias)


@register("backbone", "transformer_encoder")
class TransformerEncoder(TransformerStack):
    """Bidirectional transformer that predicts the token at each position (Devlin et al. 2018, arXiv:1810.04805).

    Args:
        n_in: token ids that can be read.
        n_out: token ids that can be predicted, the first of the n_in.
        context: positions.
        d_model: width, a multiple of n_heads.
        n_layers: transformer blocks.
        n_heads: attention heads.
        d_ff: hidden width of the MLPs; 0 is 4 d_model.
        position_encoding: see `zoo.nn.blocks.transformer_block.TransformerStack`.
        norm: kind of norm.
        norm_eps: added to the variance; 0 is torch's default.
        norm_place: "after" the embedding and every branch, or "before" every branch and at the end.
        mlp: kind of MLP.
        qk_norm: divide queries and keys by their RMS.
        dropout: of embeddings, attention and branches.
        head: whether it predicts tokens; an encoder without a head has features alone.

    Raises:
        ZooError: sizes that do not divide.
    """

    padded: bool = True  # texts may have padding; a model without it attends faster

    def __init__(
        self,
        n_in: int,
        n_out: int,
        context: int,
        *,
        d_model: PositiveInt = 128,
        n_layers: PositiveInt = 4,
        n_heads: PositiveInt = 2,
        d_ff: Count = 0,
        position_encoding: PositionEncoding = "learned",
        norm: NormKind = "layernorm",
        norm_eps: NonNegative = 1e-12,
        norm_place: Literal["before", "after"] = "after",
        mlp: MLPKind = "gelu",
        qk_norm: bool = False,
        dropout: DropoutRate = 0.1,
        head: bool = True,
    ) -> None:
        config = TransformerConfig(
            d_model, n_heads, d_ff=d_ff, norm=norm, norm_eps=norm_eps, norm_place=norm_place, mlp=mlp, bias=True,
            qk_norm=qk_norm, dropout=dropout,
        )  # fmt: skip
        super().__init__(config, n_layers, context, position_encoding=position_encoding, causal=False)
        self.embedding = nn.Embedding(n_in, d_model)
        self.reset()
        self.head = MaskedHead(config, n_out) if head else None

    def reset(self) -> None:
        """Initialise embedding and blocks."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        super().reset()

    def features(self, tokens: Tensor, position: Tensor | None = None, allowed: Tensor | None = None) -> Tensor:
        """Tokens (B, T) -> features (B, T, d); negative tokens are padding, which attention masks.

        Args:
            tokens: of texts.
            position: see `zoo.nn.blocks.transformer_block.TransformerStack.run`.
            allowed: see there.
        """
        if not self.padded:
            return self.run(self.embedding(tokens), position=position, allowed=allowed)
        return self.run(self.embedding(tokens.clamp(min=0)), real=tokens >= 0, position=position, allowed=allowed)

    def forward(
        self,
        tokens: Tensor,
        places: Tensor | None = None,
        position: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Tokens (B, T) -> logits (B, T, n_out), or (N, n_out) at positions (N,) in the flattened texts.

        Raises:
            ZooError: an encoder without a head.
        """
        if self.head is None:
            raise ZooError(
                "backbone.head=false: the encoder predicts no tokens. Use embed, or model=simcse init_from=RUN."
            )
        x = self.features(tokens, position, allowed)
        return self.head(x if places is None else x.flatten(0, 1)[places], self.embedding.weight)
