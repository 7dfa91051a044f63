"""Inception's features by torch-fidelity, from a local weights file.

torch-fidelity 0.4 downloads missing weights, and can run code of a file; both are prevented here.
"""

import pickle
from pathlib import Path

import torch
from torch import Tensor

from zoo.core.cache import user_path
from zoo.core.errors import ZooError
from zoo.core.spec import DataSpec
from zoo.evaluation.features.base import Features
from zoo.io.atomic import sha256

FILE = "weights-inception-2015-12-05-6726825d.pth"
SOURCE = f"{FILE} from torch-fidelity's releases on GitHub (v0.2.0)"


class Inception(Features):
    """The 2,048 pooled features of Inception, in which FID is defined (Heusel et al. 2017, arXiv:1706.08500).

    Images are rounded to bytes, converted to RGB, and resized to 299x299 as in TensorFlow 1.

    Args:
        spec: of the images.
        weights: weights file of torch-fidelity.

    Raises:
        ZooError: the file is missing or unreadable, or torch-fidelity is not installed.
    """

    batch_size = 50

    def __init__(self, spec: DataSpec, weights: str | Path | None) -> None:
        if spec.shape[0] not in (1, 3):
            raise ZooError(f"features=inception are of grey or RGB images, but {spec} has {spec.shape[0]} channels.")
        if weights is None:
            raise ZooError(f"features=inception need a file of weights, which is never downloaded: get {SOURCE}, "
                           f"and name it by --weights PATH.")  # fmt: skip
        path = user_path(weights)
        if not path.is_file():
            raise ZooError(f"features=inception: there is no file {path}; get {SOURCE}, and name it by --weights PATH.")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise ZooError("features=inception need torch-fidelity: pip install torch-fidelity.") from None
        try:
            torch.load(path, map_location="cpu", weights_only=True)  # the next line would execute code of the file
            self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ZooError(f"{path} does not hold Inception's weights ({reason}): get {SOURCE}.") from None
        super().__init__("inception", 2048, spec.shape, sha256(path))

    def to(self, device: str | torch.device) -> "Inception":
        """Move the network."""
        self.network.to(device)
        return self

    def extract(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2048)."""
        bytes_ = (x * 255).round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
        (features,) = self.network(bytes_.to(self.network.fc.weight.device))
        return features.flatten(1)
