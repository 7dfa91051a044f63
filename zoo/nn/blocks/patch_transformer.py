"""A transformer over some of the patches of an image, each with its place."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.nn.blocks.attention import AttentionInputs
from zoo.nn.blocks.constants import FixedConstants
from zoo.nn.blocks.position_encoding import grid_angles, rotation
from zoo.nn.blocks.transformer_block import Block
from zoo.nn.blocks.transformer_config import TransformerConfig


def to_patches(x: Tensor, side: int) -> Tensor:
    """Images (B, C, H, W) -> patches in raster order (B, T, C side^2)."""
    return F.pixel_unshuffle(x, side).flatten(2).mT


def from_patches(patches: Tensor, side: int, rows: int, columns: int) -> Tensor:
    """Inverse of `to_patches` for T = rows * columns."""
    return F.pixel_shuffle(patches.mT.unflatten(2, (rows, columns)), side)


class PatchTransformer(FixedConstants):
    """Vectors of some places of a grid (B, T, n_in) -> vectors (B, T, n_out); pre-norm, as ViT (2010.11929).

    Places have learned vectors, and rotary angles in two dimensions. The order of the vectors has no meaning.

    Args:
        grid: rows and columns.
        n_in: length of a vector.
        n_out: length of an output; 0 gives the features of the last norm, of length d_model.
        d_model: width, a multiple of n_heads.
        n_layers: transformer blocks.
        n_heads: attention heads.

    Raises:
        ZooError: heads whose width is not even.
    """

    angles: Tensor  # rotary angles of each place, (rows * columns, d_head / 2)

    def __init__(
        self, grid: tuple[int, int], n_in: int, n_out: int = 0, *, d_model: int, n_layers: int, n_heads: int
    ) -> None:
        super().__init__()
        config = TransformerConfig(d_model, n_heads, norm="layernorm", mlp="gelu", bias=True, qk_norm=True)
        if config.head % 2:
            raise ZooError(
                f"d_model={d_model}: must divide into n_heads={n_heads} heads of an even width. Choose a multiple of "
                f"{2 * n_heads}, or other n_heads."
            )
        self.stem = nn.Linear(n_in, d_model)
        self.places = nn.Embedding(grid[0] * grid[1], d_model)
        self.register_buffer("angles", grid_angles(*grid, config.head), persistent=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        last = nn.Linear(d_model, n_out) if n_out else None
        self.head = last or nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if last is not None:
            nn.init.zeros_(last.weight)

    def forward(self, x: Tensor, place: Tensor | None = None, readable: Tensor | None = None) -> Tensor:
        """Vectors (B, T, n_in) -> (B, T, n_out).

        Args:
            x: vectors.
            place: of each vector on the grid in raster order, int64 (B, T); None is all of them in this order.
            readable: bool (B, T), the vectors that others may attend to; None is all.
        """
        encoding, angles = self.places.weight, self.angles
        if place is not None:
            encoding, angles = encoding[place], angles[place][:, None]  # (B, T, d), (B, 1, T, d_head / 2)
        h = self.stem(x) + encoding
        mask = None
        if readable is not None:  # a vector attends to itself: a softmax row must not be empty
            own = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
            mask = readable[:, None, None] | own  # (B, 1, T, T)
        inputs = AttentionInputs(rotation(angles), mask, causal=False)
        for block in self.blocks:
            h = block(h, inputs)
        return self.head(self.norm(h))
