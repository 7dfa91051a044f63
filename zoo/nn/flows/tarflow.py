"""TarFlow: a masked autoregressive flow over the patches of an image, by causal transformers."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Count, DropoutRate, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Image
from zoo.nn.blocks.kv_cache import KVCache
from zoo.nn.blocks.transformer_block import TransformerStack
from zoo.nn.blocks.transformer_config import TransformerConfig
from zoo.nn.flows.base import Chain, Reverse, Transform
from zoo.nn.flows.univariate import Affine

MOST_TOKENS = 64  # of the default patch


class CausalBlock(Transform):
    """Tokens (B, T, P): each gets an affine map whose parameters come from the tokens before; the first one stays.

    Args:
        length: T.
        size: P.
        n_classes: 0 ignores labels.
        config: of the transformer.
        n_layers: of the transformer.
    """

    def __init__(self, length: int, size: int, n_classes: int, config: TransformerConfig, n_layers: int) -> None:
        super().__init__()
        self.function = Affine()
        self.stem = nn.Linear(size, config.d_model)
        self.label = nn.Embedding(n_classes, config.d_model) if n_classes else None
        self.stack = TransformerStack(config, n_layers, length, position_encoding="learned")
        self.stack.reset()
        assert self.stack.position_embedding is not None
        nn.init.normal_(self.stack.position_embedding.weight, std=0.5)  # as large as an embedded patch
        self.head = nn.Linear(config.d_model, 2 * size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def params(self, tokens: Tensor, y: Tensor | None, cache: KVCache | None = None) -> Tensor:
        """Parameters (B, T, P, 2) of the tokens that follow each of these."""
        h = self.stem(tokens)
        if self.label is not None:
            h = h + self.label(y)[:, None]
        return self.head(self.stack.run(h, cache=cache)).unflatten(2, (-1, 2))

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`; (B, T, P)."""
        z, log_slope = self.function.forward(x[:, 1:], self.params(x[:, :-1], y))
        return torch.cat([x[:, :1], z], 1), log_slope.flatten(1).sum(1)

    def inverse(self, z: Tensor, y: Tensor | None = None, cached: bool = True) -> Tensor:
        """See `Transform.inverse`; (B, T, P). Without a cache, all earlier tokens are read again for each."""
        cache = self.stack.new_cache(len(z)) if cached else None
        found = [z[:, :1]]
        for t in range(1, z.shape[1]):
            read = found[-1] if cached else torch.cat(found, 1)
            found.append(self.function.inverse(z[:, t : t + 1], self.params(read, y, cache)[:, -1:]))
        return torch.cat(found, 1)


@register("transform", "tarflow")
class TarFlow(Transform):
    """Transformer autoregressive flow (Zhai et al. 2024, 2412.06329): causal transformers over patches.

    The order of the patches is reversed between blocks. The scales are bounded.

    Args:
        shape: (C, H, W).
        n_classes: 0 ignores labels.
        patch: side of a patch in pixels, a divisor of both sides; 0 gives at most 64 patches if possible.
        n_blocks: transformers.
        n_layers: of each transformer.
        d_model: width, a multiple of n_heads.
        n_heads: attention heads.
        dropout: of attention and branches.

    Raises:
        ZooError: vectors, or a patch that does not divide the image in several.
    """

    exportable = False
    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int,
        *,
        patch: Count = 0,
        n_blocks: PositiveInt = 4,
        n_layers: PositiveInt = 2,
        d_model: PositiveInt = 64,
        n_heads: PositiveInt = 2,
        dropout: DropoutRate = 0.0,
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ZooError(
                f"model.transform=tarflow: needs images, but a sample here is {tuple(shape)}. Choose "
                "model/transform=autoregressive."
            )
        channels, height, width = shape
        self.patch = patch or default_patch(height, width)
        if height % self.patch or width % self.patch or self.patch == height == width:
            raise ZooError(
                f"model.transform.patch={patch}: it must divide images of {height}x{width} in several patches. "
                "Choose a common divisor of the sides."
            )
        self.rows, self.columns = height // self.patch, width // self.patch
        config = TransformerConfig(d_model, n_heads, norm="layernorm", qk_norm=True, dropout=dropout)
        given = self.rows * self.columns, channels * self.patch**2, n_classes, config, n_layers
        blocks = [part for _ in range(n_blocks) for part in (CausalBlock(*given), Reverse())]
        self.blocks = Chain(blocks[:-1])

    def tokens(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> patches (B, T, P)."""
        return F.pixel_unshuffle(x, self.patch).flatten(2).mT

    def images(self, tokens: Tensor) -> Tensor:
        """Inverse of `tokens`."""
        return F.pixel_shuffle(tokens.mT.unflatten(2, (self.rows, self.columns)), self.patch)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`."""
        z, log_det = self.blocks(self.tokens(x), y)
        return self.images(z), log_det

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.inverse`."""
        return self.images(self.blocks.inverse(self.tokens(z), y))


def default_patch(height: int, width: int) -> int:
    """Side of the smallest square patches, of at least 2x2 pixels, that cut an image into 2 to 64; or 1."""
    common = math.gcd(height, width)
    sides = (side for side in range(2, common + 1) if common % side == 0)
    return next((side for side in sides if 2 <= height * width // side**2 <= MOST_TOKENS), 1)
