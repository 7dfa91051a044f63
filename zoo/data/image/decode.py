"""Decode an image file to a tensor."""

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

# Suffixes that a folder is searched for.
SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm",
    ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip
DEEP_SUFFIXES = (".jp2", ".pgm", ".png", ".pnm", ".tif", ".tiff")  # of formats with up to 16 bits a value
# Formats that are decoded, whatever the suffix. Others of Pillow's start programs (EPS: Ghostscript).
Image.init()
FORMATS = tuple(
    name
    for name in ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
    if name in Image.OPEN
)
GREY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"})
BITS_PER_SAMPLE = 258  # TIFF tag
ORIENTATION, TURNED = 0x0112, frozenset({5, 6, 7, 8})  # EXIF: the tag, and the values that swap height and width
MAX_PIXELS = 2**26  # 67 megapixels; larger files are rejected as decompression bombs


def probe(path: Path) -> tuple[int, int, bool]:
    """Read (height, width, whether grey) from the header alone, as `read` has them before resizing.

    Raises:
        Exception: any error of Pillow's on a file that is not an image.
    """
    with Image.open(path, formats=FORMATS) as image:
        return *_size(image), image.mode in GREY


def deepest(path: Path) -> int | None:
    """Largest value of an image with 16 bits a value; None for other images, which are not decoded.

    Raises:
        Exception: any error of Pillow's on a damaged file.
    """
    with Image.open(path, formats=FORMATS) as image:
        _size(image)
        if not image.mode.startswith("I") or _bits(image) < 16:
            return None
        return int(np.asarray(image).max())


def read(
    file: Path | BinaryIO,
    size: tuple[int, int],
    channels: int,
    bits: int = 16,
    *,
    formats: tuple[str, ...] = FORMATS,
    max_pixels: int | None = None,
) -> Tensor:
    """Decode an image, uint8 (channels, *size).

    The EXIF orientation is applied, transparency becomes white unless there are four channels, and 16 (or 12) bits are
    reduced to 8. In an image with 16 bits a value, the largest value of `bits` becomes white. The image is resized
    (bicubic, antialiased) until it just covers `size`, and cropped at the centre. Only the first frame of an animation
    is used, and colour profiles are ignored.

    Raises:
        ValueError: larger than `max_pixels`, by default `MAX_PIXELS`; float pixels, whose range is not defined; or
            values of more than 16 bits.
        Exception: any error of Pillow's on a damaged file.
    """
    with Image.open(file, formats=formats) as image:
        height, width = _size(image, max_pixels)
        scale = max(size[0] / height, size[1] / width)
        if scale < 1:  # JPEG decodes at 1/2, 1/4 or 1/8 where that is large enough
            image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        flat = _eight_bits(ImageOps.exif_transpose(image), min(_bits(image), bits), transparent=channels == 4)
    fitted = ImageOps.fit(flat, size[::-1], Image.Resampling.BICUBIC) if flat.size != size[::-1] else flat
    pixels = np.array(fitted.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]))
    return torch.from_numpy(pixels.reshape(*size, channels)).permute(2, 0, 1)


def _size(image: Image.Image, max_pixels: int | None = None) -> tuple[int, int]:
    """Return (height, width) of the upright image, if it is safe to decode."""
    most = MAX_PIXELS if max_pixels is None else max_pixels
    if image.width * image.height > most:
        raise ValueError(f"{image.width}x{image.height} pixels: more than the {most:,} that are safe.")
    # Pillow decodes a whole PNG to find EXIF data after the pixels, which is rare.
    header_only = image.format != "PNG" or "exif" in image.info
    turned = header_only and image.getexif().get(ORIENTATION) in TURNED
    return (image.width, image.height) if turned else (image.height, image.width)


def _bits(image: Image.Image) -> int:
    """Number of bits of a value of a deep image: 16, or what a TIFF file declares, such as 12 of a camera."""
    declared = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))
    return min(int(declared[0]), 16)


def _eight_bits(image: Image.Image, bits: int, transparent: bool) -> Image.Image:
    """Convert to grey or colour with 8 bits per channel, with transparency or on white."""
    if image.mode == "F":
        raise ValueError("float pixels: their range is not defined. Save it with 8 or 16 bits.")
    if image.mode.startswith("I"):  # up to 16 bits, stored in 16 or in 32
        deep, most = np.asarray(image).astype(np.int64), 2**bits - 1
        if deep.min() < 0 or deep.max() > most:
            remedy = "Save it with 8 or 16" if bits == 16 else "Set data.bits=16"
            raise ValueError(f"values from {deep.min():,} to {deep.max():,}: more than {bits} bits. {remedy}.")
        return Image.fromarray(((255 * deep + most // 2) // most).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if transparent:
            return image
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("L" if image.mode in GREY else "RGB")
