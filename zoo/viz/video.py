"""Moving pictures as strips of frames and as animations."""

import math
from pathlib import Path

import numpy as np
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Video
from zoo.viz import images
from zoo.viz.animation import Animation, save_gif
from zoo.viz.render import Renderer


@register("renderer", "video")
class VideoRenderer(Renderer):
    """Strips, one video per row with time to the right; and animations of all videos in a grid."""

    n_samples, n_compared, n_walks = 16, 4, 2  # few: a video costs as much as many images
    per_page, has_singles = 64, True
    formats = (".gif",)
    default_suffix = ".gif"
    space: Video

    def single(self, x: Tensor) -> images.Picture:
        """The strip of one video (F, C, H, W)."""
        return images.grid(x, len(x), at_least=1)

    def render(self, x: Tensor, columns: int | None = None) -> images.Picture:
        """Strips of videos (B, F, C, H, W)."""
        return images.grid(x.flatten(0, 1), x.shape[1])

    def animation(self, x: Tensor, columns: int | None = None) -> Animation:
        """Videos (B, F, C, H, W) in a grid, all at once."""
        frames = [images.grid(frame, columns or math.ceil(math.sqrt(len(x)))) for frame in x.unbind(1)]
        return Animation(np.stack(frames), self.space.frame_rate)

    def write(self, x: Tensor, path: Path) -> None:
        """Write videos (B, F, C, H, W) as one GIF."""
        save_gif(path, self.animation(x))

    def compare(self, x: Tensor, y: Tensor) -> images.Picture:
        """Strips of data, each above its reconstruction."""
        first, second = (part.flatten(0, 1) for part in (x, y))
        return images.comparison_grid(first, second, columns=x.shape[1])

    def walks(self, x: Tensor) -> images.Picture:
        """Middle frames of interpolations (N, steps, F, C, H, W), one row per interpolation."""
        return images.interpolation_grid(x[:, :, x.shape[2] // 2])
