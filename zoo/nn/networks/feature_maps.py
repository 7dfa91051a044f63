"""Feature maps of frozen convolutional networks, and a network from the last maps back to images."""

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spec import DataSpec
from zoo.nn.blocks.layers import resolutions
from zoo.nn.networks.conv import ConvEncoder


class FeatureMaps(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> feature maps of each resolution, from the full one down; frozen.

    Borders are repeated: with zeros around a bright image, its border would be the strongest feature.

    Args:
        body: convolutions, each followed by an activation.
        source: where the weights come from, for messages.
    """

    def __init__(self, body: nn.Sequential, source: str) -> None:
        super().__init__()
        self.body, self.source = body.requires_grad_(False), source
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                layer.padding_mode = "replicate"

    def shortened(self, n: int) -> "FeatureMaps":
        """The first n resolutions, or all where there are fewer."""
        starts = [i for i, layer in enumerate(self.body) if isinstance(layer, nn.Conv2d)]
        return FeatureMaps(self.body[: starts[n]], self.source) if n < len(starts) else self

    def train(self, mode: bool = True) -> "FeatureMaps":
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> [(B, C_1, H, W), (B, C_2, H / 2, W / 2), ...], after each activation."""
        found: list[Tensor] = []
        for i, layer in enumerate(self.body):
            if i and isinstance(layer, nn.Conv2d):
                found.append(x)
            x = layer(x)
        return [*found, x]


@register("feature_maps", "random")
def random_maps(spec: DataSpec, *, width: PositiveInt = 16) -> FeatureMaps:
    """Use convolutions with random weights, for data without labels (He et al. 2016, arXiv:1606.04801).

    Args:
        spec: of the data.
        width: feature maps at full resolution; doubled with each halving, at most eightfold.
    """
    encoder = ConvEncoder(spec.shape, 1, width=width)
    for layer in encoder.body:
        if isinstance(layer, nn.Conv2d):
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
    return FeatureMaps(encoder.body, "random weights")


class MapsToImage(nn.Module):
    """Feature maps of a lower resolution -> images (B, C, H, W) in [0, 1], by convolutions and enlarging.

    Args:
        n_in: feature maps.
        shape: (C, H, W).
        n_levels: resolutions from that of the maps to that of the images.
    """

    def __init__(self, n_in: int, shape: tuple[int, ...], n_levels: int) -> None:
        super().__init__()
        self.sizes = resolutions(*shape[1:])[:n_levels][::-1]  # smallest first
        widths = [max(n_in // 2**level, 16) for level in range(len(self.sizes))]
        self.stem = nn.Conv2d(n_in, widths[0], 3, padding=1, padding_mode="replicate")
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, padding_mode="replicate") for a, b in pairwise(widths))
        self.head = nn.Conv2d(widths[-1], shape[0], 3, padding=1, padding_mode="replicate")

    def forward(self, maps: Tensor) -> Tensor:
        """(B, n_in, h, w) -> (B, C, H, W)."""
        h = F.relu(self.stem(maps))
        for size, conv in zip(self.sizes[1:], self.convs, strict=True):
            h = F.relu(conv(F.interpolate(h, size=size)))
        return self.head(h).sigmoid()
