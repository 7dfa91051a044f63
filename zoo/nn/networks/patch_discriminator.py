"""Discriminators of patches: one logit for each of many overlapping parts of an image."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Image
from zoo.nn.blocks.layers import ACTIVATIONS, Activation, Norm, image_shape, norm2d
from zoo.nn.networks.conv import channels_at


@register("patch_discriminator", "patchgan")
class PatchGAN(nn.Module):
    """Images (B, C, H, W) -> logits (B, 1, h, w) of patches (Isola et al. 2017, arXiv:1611.07004).

    Args:
        shape: (C, H, W).
        n_halvings: strided convolutions. Each doubles the side of a patch.
        width: feature maps after the first convolution; doubled with each halving, at most eightfold.
        activation: activation function.
        norm: normalisation of feature maps.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image,)

    def __init__(
        self,
        shape: Sequence[int],
        *,
        n_halvings: PositiveInt = 2,
        width: PositiveInt = 32,
        activation: Activation = "leaky_relu",
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        channels, _, _ = image_shape("patchgan", shape)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), ACTIVATIONS[activation]()]
        for level in range(1, n_halvings + 1):
            n_in, n_out = channels_at(level - 1, width), channels_at(level, width)
            layers += [nn.Conv2d(n_in, n_out, 3, 2, 1), norm2d(norm, n_out), ACTIVATIONS[activation]()]
        # Without bias: the gradients of a hinge loss at it cancel inside the margin.
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels_at(n_halvings, width), 1, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1, h, w)."""
        return self.layers(x)
