"""A diffusion transformer: patches of an image as tokens, modulated by noise level and class."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Count, Depth, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Image
from zoo.nn.blocks.attention import Attention, AttentionInputs
from zoo.nn.blocks.constants import FixedConstants
from zoo.nn.blocks.folding import Folding
from zoo.nn.blocks.layers import image_shape
from zoo.nn.blocks.mlp import MLP
from zoo.nn.blocks.noise_embedding import Context, NoiseEmbedding
from zoo.nn.blocks.position_encoding import grid_angles, rotation
from zoo.nn.blocks.transformer_config import TransformerConfig


class ModulatedBlock(nn.Module):
    """Attention and MLP, each h + (1 + gate) f(norm(h) (1 + scale) + shift) (Peebles & Xie 2022, arXiv:2212.09748).

    Between them, attention to a text, if there is one (Chen et al. 2023, arXiv:2310.00426).
    """

    def __init__(self, config: TransformerConfig, reads: bool = False) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.d_model, elementwise_affine=False)
        self.attention = Attention(config)
        self.cross = Attention(config) if reads else None
        self.mlp = MLP(config.d_model, config.mlp, config.d_ff, config.bias)
        self.modulation = nn.Linear(config.d_model, 6 * config.d_model)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, h: Tensor, condition: Tensor, inputs: AttentionInputs, context: Context | None = None) -> Tensor:
        """(B, T, d), (B, d), a text (B, S, d) -> (B, T, d)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, dim=-1)
        h = h + (1 + gate1) * self.drop(self.attention(self.norm(h) * (1 + scale1) + shift1, inputs))
        if self.cross is not None and context is not None:
            memory = self.cross.project_kv(context.tokens)
            read = AttentionInputs(None, context.mask, causal=False)
            h = h + self.drop(self.cross(self.norm(h), read, memory=memory))
        return h + (1 + gate2) * self.drop(self.mlp(self.norm(h) * (1 + scale2) + shift2))


@register("denoiser", "dit")
class DiT(FixedConstants):
    """Noisy images (B, C, H, W) -> outputs (B, n_out * C, H, W), by a transformer over patches.

    RMSNorm, SwiGLU, rotary positions in two dimensions and normalised queries and keys, as in JiT (Li & He 2025,
    arXiv:2511.13720). Images whose sides are not multiples of the patch are padded.

    Args:
        shape: (C, H, W).
        n_out: outputs per value.
        n_classes: 0 ignores labels.
        n_levels: numbers that describe the noise; 2 for flow maps.
        context_width: of a text's features, which every block attends to; 0 ignores texts.
        d_model: width, a multiple of n_heads.
        n_layers: transformer blocks.
        n_heads: attention heads.
        patch: side of a patch, in pixels; 0 gives about 64 patches.
        dropout: of attention and branches.
    """

    angles: Tensor

    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)

    def __init__(
        self,
        shape: Sequence[int],
        n_out: int,
        n_classes: int,
        n_levels: int = 1,
        context_width: int = 0,
        *,
        d_model: PositiveInt = 96,
        n_layers: Depth = 3,
        n_heads: PositiveInt = 3,
        patch: Count = 0,
        dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.0,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape("dit", shape)
        self.patch = patch or max(round(max(height, width) / 8), 2)
        self.folding = Folding(height, width, self.patch)
        config = TransformerConfig(d_model, n_heads, mlp="swiglu", qk_norm=True, dropout=dropout)
        self.embedding = NoiseEmbedding(d_model, n_classes, n_levels, context_width)
        self.stem = nn.Linear(channels * self.patch**2, d_model)
        self.register_buffer(
            "angles", grid_angles(self.folding.rows, self.folding.columns, config.head), persistent=False
        )
        self.blocks = nn.ModuleList(ModulatedBlock(config, context_width > 0) for _ in range(n_layers))
        self.text = nn.Linear(context_width, d_model) if context_width else None
        self.norm = nn.RMSNorm(d_model)
        self.head = nn.Linear(d_model, n_out * channels * self.patch**2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, z: Tensor, noise: Tensor, y: Tensor | None = None, context: Context | None = None) -> Tensor:
        """(B, C, H, W), noise levels (B,) or (B, n_levels), labels (B,), texts -> (B, n_out * C, H, W)."""
        h = self.stem(self.folding.fold(z).flatten(2).mT)  # (B, T, d)
        condition = F.silu(self.embedding(noise, y, context))
        if self.text is not None and context is not None:
            context = context._replace(tokens=self.text(context.tokens))
        inputs = AttentionInputs(rotation(self.angles), None, causal=False)
        for block in self.blocks:
            h = block(h, condition, inputs, context)
        return self.folding.unfold(self.head(self.norm(h)).mT.unflatten(2, (self.folding.rows, self.folding.columns)))
