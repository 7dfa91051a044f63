"""Video files as tensors: GIF, animated PNG and WebP by Pillow, other formats by PyAV."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.data.image.decode import MAX_PIXELS

PILLOW = {".gif": "GIF", ".png": "PNG", ".apng": "PNG", ".webp": "WEBP"}  # suffix -> format
PYAV = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
SUFFIXES = (*PILLOW, *PYAV)
MAX_FRAMES = 10_000  # of one file that are decoded
MODES = {1: "L", 3: "RGB"}
Timed = tuple[Image.Image, float]  # a frame, and how long it is shown, seconds


def read_video(
    file: Path | BinaryIO,
    size: tuple[int, int],
    channels: int,
    frame_rate: float | None = None,
    *,
    most: int = MAX_FRAMES,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Decode a video, uint8 (F, channels, *size); each frame is resized to cover `size`, and cropped at the centre.

    Args:
        file: path; or contents, of a format of Pillow's.
        size: height and width.
        channels: 1 (grey) or 3 (colour); transparency becomes black.
        frame_rate: frames per second, chosen by the times of the file; None takes each frame once.
        most: frames that are decoded.
        max_pixels: of a frame.

    Raises:
        ConfigError: the file needs PyAV, which is not installed.
        ValueError: frames that are too large, or none.
        Exception: any error of the decoder on a damaged file.
    """
    kept, clock, due = list[Tensor](), 0.0, 0.0  # seconds
    frames = (
        _by_pyav(file, max_pixels)
        if isinstance(file, Path) and file.suffix.lower() in PYAV
        else _by_pillow(file, max_pixels)
    )
    for frame, seconds in islice(frames, most):
        pixels = _fitted(frame, size, channels)
        clock += seconds
        if frame_rate is None:
            kept.append(pixels)
            continue
        while due < clock - 1e-9 and len(kept) < most:
            kept.append(pixels)
            due = len(kept) / frame_rate
    if not kept:
        raise ValueError("no frames.")
    return torch.stack(kept)


def _fitted(frame: Image.Image, size: tuple[int, int], channels: int) -> Tensor:
    """A frame as uint8 (channels, *size)."""
    if frame.has_transparency_data:
        rgba = frame.convert("RGBA")
        frame = Image.alpha_composite(Image.new("RGBA", frame.size, "black"), rgba)
    flat = frame.convert(MODES[channels])
    fitted = ImageOps.fit(flat, size[::-1], Image.Resampling.BICUBIC) if flat.size != size[::-1] else flat
    return torch.from_numpy(np.array(fitted).reshape(*size, channels)).permute(2, 0, 1)


def _by_pillow(content: Path | BinaryIO, max_pixels: int) -> Iterator[Timed]:
    """Frames of an animation; a file with one picture has one."""
    with Image.open(content, formats=tuple(set(PILLOW.values()))) as file:
        _check_size(file, max_pixels)
        for frame in ImageSequence.Iterator(file):
            frame.load()
            yield frame, frame.info.get("duration", 100) / 1000  # of the frame that was loaded, milliseconds


def _by_pyav(path: Path, max_pixels: int) -> Iterator[Timed]:
    """Frames of the first video stream."""
    try:
        import av
    except ImportError:
        raise ConfigError(
            f"{path.name}: needs PyAV, which is not installed. pip install 'generative-zoo[video]'."
        ) from None
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        seconds = 1 / float(stream.average_rate or 25)
        for frame in file.decode(stream):
            _check_size(frame, max_pixels)
            yield frame.to_image(), seconds


def _check_size(frame: Any, most: int) -> None:
    """Refuse decompression bombs."""
    if frame.width * frame.height > most:
        raise ValueError(f"{frame.width}x{frame.height} pixels: more than the {most:,} that are safe.")
