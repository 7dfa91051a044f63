"""PNG files of pictures in memory, thousands a second."""

import base64
import binascii
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
ADLER = 65521  # the largest prime below 2^16
WINDOW = (9, 15)  # bits of zlib's window; its memory is cleared for each file, so that a small one saves most time


def pngs(x: Tensor) -> list[str]:
    """Pictures (N, C, H, W) in [0, 1] as PNG, base64; those of one or two channels are grey, unless one has a NaN."""
    pixels = bytes_of(x)
    if is_small(pixels):
        return base64_rows(stored_files(pixels))
    return [base64.b64encode(file).decode() for file in png_files(pixels)]


def png_files(pixels: NDArray[np.uint8]) -> list[bytes]:
    """Pictures (N, H, W, C) of 8 bits, grey or RGB, as PNG files (ISO/IEC 15948), without line filters."""
    if is_small(pixels):
        return [each.tobytes() for each in stored_files(pixels)]
    lines = filtered(pixels)
    size = lines[0].size
    bits = min(max((size - 1).bit_length(), WINDOW[0]), WINDOW[1])
    head, end = frame(pixels)
    found = []
    for each in lines:
        packer = zlib.compressobj(LEVEL, zlib.DEFLATED, bits, bits - 7)
        found.append(head + chunk(b"IDAT", packer.compress(each) + packer.flush()) + end)
    return found


def is_small(pixels: NDArray[np.uint8]) -> bool:
    """Whether pictures (N, H, W, C) are stored, not compressed: by the bytes of one with its filters."""
    _, height, width, channels = pixels.shape
    return height * (1 + width * channels) <= STORED


def stored_files(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Small pictures (N, H, W, C) as PNG files of one length (N, L), whose pixels are one stored block (RFC 1951).

    The files differ in their pixels and two checksums only. Adler-32 is computed for all pictures together, by its
    definition (RFC 1950), as sums of integers that a double holds exactly.
    """
    lines = filtered(pixels)
    n, size = lines.shape[0], lines[0].size
    head, end = frame(pixels)
    packed = b"\x18\x19\x01" + struct.pack("<HH", size, size ^ 0xFFFF)  # a window of 512 bytes, and the last block
    begin = struct.pack(">I", len(packed) + size + 4) + b"IDAT" + packed
    data = len(head) + len(begin)  # where the pixels begin
    files = np.empty((n, data + size + 8 + len(end)), np.uint8)
    files[:, :data] = np.frombuffer(head + begin, np.uint8)
    files[:, data : data + size] = lines.reshape(n, size)
    weights = np.stack([np.ones(size), np.arange(size, 0, -1)], 1)
    low, high = ((lines.reshape(n, size).astype(np.float64) @ weights + (1, size)) % ADLER).astype(np.uint32).T
    files[:, data + size : data + size + 4] = big_endian(high << 16 | low)
    checked = np.ascontiguousarray(files[:, len(head) + 4 : data + size + 4])
    files[:, data + size + 4 : data + size + 8] = big_endian(
        np.array([zlib.crc32(each) for each in checked], np.uint32)
    )
    files[:, data + size + 8 :] = np.frombuffer(end, np.uint8)
    return files


def base64_rows(files: NDArray[np.uint8]) -> list[str]:
    """Files of one length (N, L) in base64, all by one call: each is padded with zeros, whose letters become `=`."""
    n, length = files.shape
    missing = -length % 3
    whole = np.zeros((n, length + missing), np.uint8)
    whole[:, :length] = files
    text = binascii.b2a_base64(whole.tobytes(), newline=False).decode()
    width = whole.shape[1] // 3 * 4
    end = "=" * missing
    return [text[at : at + width - missing] + end for at in range(0, n * width, width)]


def filtered(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lines (N, H, 1 + W * C), each of which begins with its filter, 0."""
    n, height, width, channels = pixels.shape
    lines = np.zeros((n, height, 1 + width * channels), np.uint8)
    lines[:, :, 1:] = pixels.reshape(n, height, -1)
    return lines


def frame(pixels: NDArray[np.uint8]) -> tuple[bytes, bytes]:
    """Bytes of a file before and after the chunk of its pixels (N, H, W, C)."""
    _, height, width, channels = pixels.shape
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, KINDS[channels], 0, 0, 0))
    return SIGNATURE + head, chunk(b"IEND", b"")


def big_endian(numbers: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Numbers (N,) as four bytes each (N, 4)."""
    return numbers.astype(">u4").view(np.uint8).reshape(-1, 4)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
