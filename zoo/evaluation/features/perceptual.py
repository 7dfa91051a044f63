"""Perceptual distance in the feature maps of the built-in classifiers, for models that train with one."""

import torch
from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.spec import DataSpec
from zoo.evaluation.features.base import shipped_for
from zoo.evaluation.features.classifier import read
from zoo.nn.networks.feature_maps import FeatureMaps, random_maps


@register("perceptual", "classifier")
class ClassifierDistance(nn.Module):
    """Distance of two images in the feature maps of a frozen classifier of the data.

    The maps of every layer are scaled to length 1 at each place, as in LPIPS without its learned weights (Zhang et al.
    2018, arXiv:1801.03924, equation 1).

    Args:
        spec: of the data; without a built-in classifier for them, the distance is 0, and `available` false.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        path = shipped_for(spec)
        self.available = path is not None
        self.layers = nn.ModuleList()
        if path is not None:
            with torch.device("cpu"):  # also while a model is built without memory
                body = read(path)[0].encoder.body
            self.layers.extend(body.requires_grad_(False))

    def train(self, mode: bool = True) -> "ClassifierDistance":
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1], twice -> squared distances averaged over places, added over layers, (B,)."""
        total, both = x.new_zeros(len(x)), torch.cat([x, y])
        for layer in self.layers:
            both = layer(both)
            if not isinstance(layer, nn.Conv2d):  # an activation, or a normalisation
                one, two = nn.functional.normalize(both, dim=1, eps=1e-8).chunk(2)
                total = total + (one - two).square().sum(1).mean((1, 2))
        return total


@register("feature_maps", "classifier")
def classifier_maps(spec: DataSpec) -> FeatureMaps:
    """Use the built-in classifier of the data, or random weights where there is none.

    Args:
        spec: of the data.
    """
    path = shipped_for(spec)
    if path is None:
        return random_maps(spec)
    with torch.device("cpu"):
        network, card = read(path)
    return FeatureMaps(network.encoder.body, f"the classifier of {card['name']}")
