"""Transformer over the codes of a video, which attends in space and in time by turns."""

from typing import Literal

import torch
from torch import Tensor, nn

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Count, DropoutRate, NonNegative, PositiveInt
from zoo.nn.blocks.attention import AttentionInputs
from zoo.nn.blocks.constants import FixedConstants
from zoo.nn.blocks.norms import make_norm
from zoo.nn.blocks.position_encoding import rotary_angles, rotary_rates, rotation
from zoo.nn.blocks.transformer_block import Block, reset_blocks
from zoo.nn.blocks.transformer_config import MLPKind, NormKind, TransformerConfig
from zoo.nn.kernels.cpu_dropout import Dropout
from zoo.nn.networks.transformer_encoder import MaskedHead


@register("backbone", "space_time_encoder")
class SpaceTimeEncoder(FixedConstants):
    """Bidirectional transformer over F frames of S tokens each, after a first token.

    Every odd block attends to the tokens of the same frame, and every even one to the tokens at the same place of all
    frames: F S (F + S) scores in place of (F S)^2 (Arnab et al. 2021, ViViT, arXiv:2103.15691, model 3). The first
    token, such as a class, is added to all others. Places and frames have learned positions.

    Args:
        n_in: token ids that can be read.
        n_out: token ids that can be predicted, the first of the n_in.
        context: 1 + F S.
        d_model: width, a multiple of n_heads.
        n_layers: transformer blocks.
        n_heads: attention heads.
        d_ff: hidden width of the MLPs; 0 is 4 d_model.
        position_encoding: "learned", or "learned_rotary", which also rotates queries and keys by the place in a frame
            and by the frame.
        norm: kind of norm.
        norm_eps: added to the variance; 0 is torch's default.
        norm_place: "after" the embedding and every branch, or "before" every branch and at the end.
        mlp: kind of MLP.
        qk_norm: divide queries and keys by their RMS.
        dropout: of embeddings, attention and branches.

    Raises:
        ZooError: sizes that do not divide, or a single block, which does not see other frames.
    """

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
        position_encoding: Literal["learned", "learned_rotary"] = "learned_rotary",
        norm: NormKind = "rmsnorm_no_gain",
        norm_eps: NonNegative = 0.0,
        norm_place: Literal["before", "after"] = "before",
        mlp: MLPKind = "relu_squared",
        qk_norm: bool = True,
        dropout: DropoutRate = 0.0,
    ) -> None:
        super().__init__()
        if n_layers < 2:
            raise ZooError("backbone.n_layers=1: attends in space alone. Choose 2 or more, one for time.")
        if "rotary" in position_encoding and d_model % (2 * n_heads):
            raise ZooError(
                f"backbone.d_model={d_model}: must divide into n_heads={n_heads} heads of an even width. Choose a "
                f"multiple of {2 * n_heads}, or position_encoding=learned."
            )
        config = TransformerConfig(
            d_model, n_heads, d_ff=d_ff, norm=norm, norm_eps=norm_eps, norm_place=norm_place, mlp=mlp, bias=True,
            qk_norm=qk_norm, dropout=dropout,
        )  # fmt: skip
        self.config, self.n_tokens, self.frames = config, context - 1, 0
        angles = rotary_angles(context, rotary_rates(config.head, 10000.0)) if "rotary" in position_encoding else None
        self.angles: Tensor | None
        self.register_buffer("angles", angles, persistent=False)
        self.embedding = nn.Embedding(n_in, d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.place, self.time = nn.Parameter(torch.empty(0, d_model)), nn.Parameter(torch.empty(0, d_model))
        self.blocks = nn.ModuleList(Block(config) for _ in range(n_layers))
        reset_blocks(self.blocks)
        self.norm, self.drop = make_norm(norm, d_model, norm_eps), Dropout(dropout)
        self.head = MaskedHead(config, n_out)

    def set_frames(self, frames: int) -> None:
        """Learn a position for each of so many frames, and for each place in a frame; before the training.

        Raises:
            ZooError: tokens that are not those of frames.
        """
        if frames < 1 or self.n_tokens % frames:
            raise ZooError(
                "model.backbone=space_time_encoder: reads the codes of videos. Give first_stage=RUN of a vqvae that "
                "was trained on videos, or choose transformer_encoder."
            )
        self.frames = frames
        width = self.place.shape[1]
        self.place = nn.Parameter(torch.empty(self.n_tokens // frames, width, device=self.place.device))
        self.time = nn.Parameter(torch.empty(frames, width, device=self.place.device))
        nn.init.normal_(self.place, std=0.02)
        nn.init.normal_(self.time, std=0.02)

    def features(self, tokens: Tensor) -> Tensor:
        """Tokens (B, 1 + F S) -> features (B, 1 + F S, d); that of the first token is its embedding."""
        first, x = self.embedding(tokens).split([1, self.n_tokens], 1)
        x = x.unflatten(1, (self.frames, -1)) + self.place + self.time[:, None] + first[:, None]  # (B, F, S, d)
        post = self.config.norm_place == "after"
        x = self.drop(self.norm(x) if post else x)
        in_frame, over_time = self.attention_inputs(x.shape[2]), self.attention_inputs(self.frames)
        for layer, block in enumerate(self.blocks):
            if layer % 2:  # (B, F, S, d) -> (B S, F, d)
                x = block(x.transpose(1, 2).flatten(0, 1), over_time).unflatten(0, (-1, x.shape[2])).transpose(1, 2)
            else:
                x = block(x.flatten(0, 1), in_frame).unflatten(0, (-1, x.shape[1]))
        return torch.cat([first, (x if post else self.norm(x)).flatten(1, 2)], 1)

    def attention_inputs(self, length: int) -> AttentionInputs:
        """Attention to all of so many positions."""
        return AttentionInputs(None if self.angles is None else rotation(self.angles[:length]), None, False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, 1 + F S) -> logits (B, 1 + F S, n_out)."""
        return self.head(self.features(tokens), self.embedding.weight)
