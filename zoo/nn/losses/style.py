"""Style and content of images, by the statistics of their feature maps; pure functions."""

from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST = 1e-5  # standard deviation that is divided by


def gram(maps: Tensor) -> Tensor:
    """Mean products of two feature maps at one place, (B, C, H, W) -> (B, C, C): style without places.

    (Gatys et al. 2015, arXiv:1508.06576, equation 3, divided by the number of places.)
    """
    flat = maps.flatten(2)  # (B, C, HW)
    return flat @ flat.mT / flat.shape[2]


def mean_and_std(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature map over places, (B, C, H, W) -> (B, C, 1, 1) each."""
    mean = maps.mean((2, 3), keepdim=True)
    variance = (maps - mean).square().mean((2, 3), keepdim=True)
    return mean, variance.clamp(min=SMALLEST**2).sqrt()  # finite gradients of constant maps


def adain(content: Tensor, style: Tensor) -> Tensor:
    """Content maps with the means and standard deviations of style maps, both (B, C, H, W).

    Adaptive instance normalisation (Huang & Belongie 2017, arXiv:1703.06868, equation 8). A constant map of the content
    stays constant, at the style's mean.
    """
    mean, std = mean_and_std(content)
    wanted_mean, wanted_std = mean_and_std(style)
    return wanted_std * (content - mean) / std + wanted_mean


def gram_distance(maps: Sequence[Tensor], style: Sequence[Tensor]) -> Tensor:
    """Squared distances of Gram matrices, averaged over entries and images, and added over layers."""
    return torch.stack([(gram(a) - gram(b)).square().mean() for a, b in zip(maps, style, strict=True)]).sum()


def statistics_distance(maps: Sequence[Tensor], style: Sequence[Tensor]) -> Tensor:
    """Squared distances of means and of standard deviations, averaged over maps and images, and added over layers.

    (Huang & Belongie 2017, equation 13.)
    """
    terms = [
        (one - two).square().mean()
        for a, b in zip(maps, style, strict=True)
        for one, two in zip(mean_and_std(a), mean_and_std(b), strict=True)
    ]
    return torch.stack(terms).sum()
