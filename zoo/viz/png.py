"""PNG files of pictures in memory, thousands a second."""

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo.viz.images import pixels_of

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KINDS = {1: 0, 3: 2}  # channels -> colour type
WINDOW = (9, 15)  # bits of zlib's window; its memory is cleared for each file, so that a small one saves most time


def pngs(x: Tensor) -> list[str]:
    """Pictures (N, C, H, W) in [0, 1] as PNG, base64; grey ones have one channel."""
    pixels = pixels_of(x)  # (N, H, W, 3)
    grey = (pixels == pixels[..., :1]).all()
    return [base64.b64encode(file).decode() for file in png_files(pixels[..., :1] if grey else pixels)]


def png_files(pixels: NDArray[np.uint8]) -> list[bytes]:
    """Pictures (N, H, W, C) of 8 bits, grey or RGB, as PNG files (ISO/IEC 15948), without line filters."""
    n, height, width, channels = pixels.shape
    lines = np.zeros((n, height, 1 + width * channels), np.uint8)  # each line begins with its filter, 0
    lines[:, :, 1:] = pixels.reshape(n, height, -1)
    head = SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, KINDS[channels], 0, 0, 0))
    end, bits = chunk(b"IEND", b""), min(max(int(lines[0].size - 1).bit_length(), WINDOW[0]), WINDOW[1])
    found = []
    for each in lines:
        packer = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, bits, bits - 7)
        found.append(head + chunk(b"IDAT", packer.compress(each.tobytes()) + packer.flush()) + end)
    return found


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
