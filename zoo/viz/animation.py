"""Animations, and GIF files."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.io.atomic import write_bytes

LAST = 0.5  # seconds that the last frame stays longer


@dataclass(frozen=True)
class Animation:
    """A moving picture.

    Args:
        frames: (F, H, W, 3), uint8.
        rate: frames per second.
    """

    frames: NDArray[np.uint8]
    rate: float


def gif_rate(rate: float) -> float:
    """Frames per second of a GIF file, whose times are in hundredths of a second."""
    return 100 / max(round(100 / rate), 1)


def gif(animation: Animation, pause: float = LAST) -> bytes:
    """Encode as GIF that repeats forever; exact for grey pictures, and with 256 colours per frame for others.

    Args:
        animation: the moving picture.
        pause: seconds that the last frame stays longer.
    """
    pixels = animation.frames
    if (pixels == pixels[..., :1]).all():
        pictures = [Image.fromarray(frame[..., 0]) for frame in pixels]
    else:
        pictures = [Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE) for frame in pixels]
    duration = [round(1000 / gif_rate(animation.rate))] * len(pictures)  # milliseconds
    duration[-1] += round(1000 * pause)
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0, optimize=False)
    return file.getvalue()


def save_gif(path: Path, animation: Animation) -> None:
    """Write a GIF file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, gif(animation))
