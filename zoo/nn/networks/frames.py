"""Networks for videos: a convolutional network in every frame, and a perceptron over time."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Video
from zoo.nn.blocks.layers import ACTIVATIONS, Activation, Norm, maybe_spectral_norm
from zoo.nn.networks.conv import ConvDecoder, ConvEncoder

PER_FRAME = 4  # features of a frame, in units of `width`


def video_shape(shape: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """Number of frames, and the shape (C, H, W) of one.

    Raises:
        ZooError: not the shape of a video.
    """
    if len(shape) != 4:
        size = "x".join(map(str, shape))
        raise ZooError(f"network=frames: needs videos (F, C, H, W), but a sample here is {size}. Choose auto instead.")
    return shape[0], tuple(shape[1:])


@register("encoder", "frames")
class FramesEncoder(nn.Module):
    """Videos (B, F, C, H, W) -> features (B, out_dim): `conv` in every frame, then a perceptron of all frames.

    Args:
        shape: (F, C, H, W).
        out_dim: number of features.
        width: feature maps of a frame at full resolution.
        hidden: units between the frames and the output.
        activation: activation function.
        norm: normalisation of feature maps.
        spectral_norm: apply spectral normalisation to all weights (1802.05957).
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Video,)

    def __init__(
        self,
        shape: Sequence[int],
        out_dim: int,
        *,
        width: PositiveInt = 16,
        hidden: PositiveInt = 256,
        activation: Activation = "leaky_relu",
        norm: Norm = "none",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        frames, frame = video_shape(shape)
        features = PER_FRAME * width
        self.frame = ConvEncoder(
            frame, features, width=width, activation=activation, norm=norm, spectral_norm=spectral_norm
        )
        self.time = nn.Sequential(
            ACTIVATIONS[activation](),
            nn.Flatten(1),
            maybe_spectral_norm(nn.Linear(frames * features, hidden), spectral_norm),
            ACTIVATIONS[activation](),
            maybe_spectral_norm(nn.Linear(hidden, out_dim), spectral_norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, C, H, W) -> (B, out_dim)."""
        return self.time(self.frame(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


@register("decoder", "frames")
class FramesDecoder(nn.Module):
    """Vectors (B, in_dim) -> videos (B, F, C, H, W): a perceptron to the features of all frames, then `conv` in each.

    Args:
        in_dim: size of the input vector.
        shape: (F, C, H, W).
        width: feature maps of a frame at full resolution.
        hidden: units between the input and the frames.
        activation: activation function.
        norm: normalisation of feature maps.
        spectral_norm: apply spectral normalisation to all weights (1802.05957).
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Video,)

    def __init__(
        self,
        in_dim: int,
        shape: Sequence[int],
        *,
        width: PositiveInt = 16,
        hidden: PositiveInt = 256,
        activation: Activation = "relu",
        norm: Norm = "none",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.frames, frame = video_shape(shape)
        features = PER_FRAME * width
        self.time = nn.Sequential(
            maybe_spectral_norm(nn.Linear(in_dim, hidden), spectral_norm),
            ACTIVATIONS[activation](),
            maybe_spectral_norm(nn.Linear(hidden, self.frames * features), spectral_norm),
            ACTIVATIONS[activation](),
        )
        self.frame = ConvDecoder(
            features, frame, width=width, activation=activation, norm=norm, spectral_norm=spectral_norm
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, in_dim) -> (B, F, C, H, W)."""
        return self.frame(self.time(z).view(len(z) * self.frames, -1)).unflatten(0, (-1, self.frames))
