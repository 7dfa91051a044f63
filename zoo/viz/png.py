"""PNG files of pictures in memory, thousands a second."""

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo.viz.images import bytes_of

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KINDS = {1: 0, 3: 2}  # channels -> colour type
STORED = 1024  # bytes of the largest picture that is not compressed: zlib takes most of the time of a small one
LEVEL = 3  # of zlib for larger ones: two thirds of the time of its default, and 6 % more bytes
WINDOW = (9, 15)  # bits of zlib's window; its memory is cleared for each file, so that a small one saves most time


def pngs(x: Tensor) -> list[str]:
    """Pictures (N, C, H, W) in [0, 1] as PNG, base64; those of one or two channels are grey, unless one has a NaN."""
    return [base64.b64encode(file).decode() for file in png_files(bytes_of(x))]


def png_files(pixels: NDArray[np.uint8]) -> list[bytes]:
    """Pictures (N, H, W, C) of 8 bits, grey or RGB, as PNG files (ISO/IEC 15948), without line filters."""
    n, height, width, channels = pixels.shape
    lines = np.zeros((n, height, 1 + width * channels), np.uint8)  # each line begins with its filter, 0
    lines[:, :, 1:] = pixels.reshape(n, height, -1)
    size = height * lines.shape[2]
    level, bits = LEVEL if size > STORED else 0, min(max((size - 1).bit_length(), WINDOW[0]), WINDOW[1])
    head = SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, KINDS[channels], 0, 0, 0))
    end = chunk(b"IEND", b"")
    found = []
    for each in lines:
        packer = zlib.compressobj(level, zlib.DEFLATED, bits, bits - 7)
        found.append(head + chunk(b"IDAT", packer.compress(each) + packer.flush()) + end)
    return found


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
