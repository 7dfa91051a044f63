"""Feature maps of VGG, with weights from a local file of torchvision."""

import hashlib
import pickle
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.core.cache import user_path
from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.spec import DataSpec
from zoo.nn.blocks.layers import image_shape, resolutions
from zoo.nn.networks.feature_maps import FeatureMaps

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet: torchvision's inputs are standardised by them
KEY = re.compile(r"features\.(\d+)\.weight")
FILE = "a state_dict of torchvision's vgg11, vgg13, vgg16 or vgg19, such as vgg19-dcbb9e9d.pth"


class VGGMaps(FeatureMaps):
    """Images (B, C, H, W) in [0, 1] -> maps after the first activation of each resolution: relu1_1, relu2_1, ...

    These are the layers of AdaIN (Huang & Belongie 2017, arXiv:1703.06868). Sizes round up.

    Args:
        body: convolutions with activations, and pooling in between.
        source: where the weights come from.
    """

    def __init__(self, body: nn.Sequential, source: str) -> None:
        super().__init__(body, source)
        layers = list(body.children())
        self.ends = [i for i, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
        self.ends = [i for i in self.ends if i == 1 or isinstance(layers[i - 2], nn.MaxPool2d)]

    def shortened(self, n: int) -> "VGGMaps":
        """The first n resolutions, or all where there are fewer; later layers of the last one are left out."""
        return VGGMaps(self.body[: self.ends[:n][-1] + 1], self.source)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> [(B, 64, H, W), (B, 128, H / 2, W / 2), ...]."""
        found = []
        for i, layer in enumerate(self.body):
            x = layer(x)
            if i in self.ends:
                found.append(x)
        return found


@register("feature_maps", "vgg")
def vgg_maps(spec: DataSpec, *, weights: str = "") -> VGGMaps:
    """Use VGG (Simonyan & Zisserman 2014, arXiv:1409.1556), with weights from a local file, which is never downloaded.

    The network is read off the file: its depth and widths. Standardisation is part of the first convolution, and grey
    images count as three equal channels. Loading a trained model needs the file again.

    Args:
        spec: of the data: grey or colour images.
        weights: path of a `state_dict` of torchvision.

    Raises:
        ConfigError: images of another number of channels; no file, or one with damage, code or other weights.
    """
    channels, height, width = image_shape("vgg", spec.shape)
    if channels not in (1, 3):
        raise ConfigError(
            f"model.feature_maps=vgg: needs grey or colour images, but these have {channels} channels. "
            "Choose model/feature_maps=random."
        )
    if not weights:
        raise ConfigError(f"model.feature_maps.weights='': VGG needs a file of weights. Name {FILE}.")
    path = user_path(weights)
    if not path.is_file():
        raise ConfigError(f"model.feature_maps.weights={weights}: there is no such file. Name {FILE}.")
    state = read(path)
    found = {int(hit[1]): state[key] for key in state if (hit := KEY.fullmatch(str(key)))}
    numbers = sorted(found)
    gaps = [b - a for a, b in pairwise(numbers)]  # 2: an activation in between; 3: pooling, too
    plain = all(isinstance(w, Tensor) and w.ndim == 4 and w.shape[2:] == (3, 3) for w in found.values())
    if not plain or numbers[:1] != [0] or not set(gaps) <= {2, 3}:
        raise ConfigError(
            f"model.feature_maps.weights={weights}: not weights of VGG without normalisation. Name {FILE}."
        )
    layers: list[nn.Module] = []
    with torch.device("cpu"):  # also while a model is built without memory
        for number, gap in zip(numbers, [0, *gaps], strict=True):
            layers += [nn.MaxPool2d(2, ceil_mode=True)] * (gap == 3)
            layers += [convolution(found[number], state[f"features.{number}.bias"]), nn.ReLU()]
        layers[0] = convolution(*standardised(found[0], state["features.0.bias"], channels))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    maps = VGGMaps(nn.Sequential(*layers), f"vgg{len(numbers) + 3}-{digest[:8]}")
    return maps.shortened(len(resolutions(height, width)))


def read(path: Path) -> dict[str, Any]:
    """Read a state_dict, also in torch's format before zip archives, without executing code.

    Raises:
        ConfigError: see `vgg_maps`.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"model.feature_maps.weights={path}: cannot be read ({reason}). Name {FILE}.") from None
    return state if isinstance(state, dict) else {}


def convolution(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A 3x3 convolution with given weights (out, in, 3, 3) and bias (out,)."""
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def standardised(weight: Tensor, bias: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Weights and bias that give, of images in [0, 1], the maps of their standardised form."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    scaled = weight / std[:, None, None]
    shifted = bias - (scaled.sum((2, 3)) * mean).sum(1)
    return (scaled if channels == 3 else scaled.sum(1, keepdim=True)), shifted
