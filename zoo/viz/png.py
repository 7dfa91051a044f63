"""PNG files of pictures in memory, thousands a second."""

import base64
import binascii
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

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
    if not is_small(pixels):
        return [base64.b64encode(file).decode() for file in png_files(pixels)]
    letters = letter_rows(pixels)
    text, width = letters.tobytes().decode("ascii"), letters.shape[1]
    return [text[at : at + width] for at in range(0, len(text), width)]


def joined_pngs(x: Tensor, before: bytes, after: bytes) -> bytes:
    """The texts of `pngs`, each between two others, as one; that of small pictures is made by array operations."""
    pixels = bytes_of(x)
    if is_small(pixels):
        return letter_rows(pixels, before, after).tobytes()
    return b"".join(before + base64.b64encode(file) + after for file in png_files(pixels))


def png_files(pixels: NDArray[np.uint8]) -> list[bytes]:
    """Pictures (N, H, W, C) of 8 bits, grey or RGB, as PNG files (ISO/IEC 15948), without line filters."""
    if is_small(pixels):
        return [each.tobytes() for each in stored_files(pixels)]
    lines = filtered(pixels)
    size = lines[0].size
    bits = min(max((size - 1).bit_length(), WINDOW[0]), WINDOW[1])
    head, end = frame(*pixels.shape[1:])
    found = []
    for each in lines:
        packer = zlib.compressobj(LEVEL, zlib.DEFLATED, bits, bits - 7)
        found.append(head + chunk(b"IDAT", packer.compress(each) + packer.flush()) + end)
    return found


def is_small(pixels: NDArray[np.uint8]) -> bool:
    """Whether pictures (N, H, W, C) are stored, not compressed: by the bytes of one with its filters."""
    _, height, width, channels = pixels.shape
    return height * (1 + width * channels) <= STORED


@dataclass(frozen=True)
class Layout:
    """The common parts of the files of all stored pictures of one size.

    Args:
        template: a file (L,) with zeros for pixels and checksums.
        pixels: where the lines of pixels begin.
        size: bytes of all lines, each with its filter.
        chunk: where the chunk of pixels begins, behind its length.
        weights: of the bytes of a picture without filters (H * W * C, 2) in the sums of Adler-32.
    """

    template: NDArray[np.uint8]
    pixels: int
    size: int
    chunk: int
    weights: NDArray[np.float64]


@lru_cache(8)
def layout(height: int, width: int, channels: int) -> Layout:
    """The layout of pictures of one size (RFC 1951, section 3.2.4)."""
    line = 1 + width * channels
    size = height * line
    head, end = frame(height, width, channels)
    packed = b"\x18\x19\x01" + struct.pack("<HH", size, size ^ 0xFFFF)  # a window of 512 bytes, and the last block
    begin = struct.pack(">I", len(packed) + size + 4) + b"IDAT" + packed
    template = np.frombuffer(head + begin + bytes(size + 8) + end, np.uint8)
    places = np.arange(size, 0, -1.0).reshape(height, line)[:, 1:].reshape(-1)  # filters are 0, and add nothing
    weights = np.stack([np.ones_like(places), places], 1)
    return Layout(template, len(head) + len(begin), size, len(head) + 4, weights)


def stored_files(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Small pictures (N, H, W, C) as PNG files of one length (N, L), whose pixels are one stored block (RFC 1951).

    The files differ in their pixels and two checksums only. Adler-32 is computed for all pictures together, by its
    definition (RFC 1950), as sums of integers that a double holds exactly.
    """
    n, height, width, channels = pixels.shape
    made = layout(height, width, channels)
    files = np.empty((n, len(made.template)), np.uint8)
    files[:] = made.template
    flat = pixels.reshape(n, height, width * channels)
    steps = (files.strides[0], 1 + width * channels, 1)
    np.ndarray(flat.shape, np.uint8, files, made.pixels + 1, steps)[:] = flat
    sums = flat.reshape(n, -1).astype(np.float64) @ made.weights
    sums += (1, made.size)
    low, high = (sums % ADLER).astype(np.uint32).T
    check = made.pixels + made.size
    files[:, check : check + 4] = big_endian(high << 16 | low)
    checked = np.ascontiguousarray(files[:, made.chunk : check + 4])
    each: list[bytes] = checked.view(np.dtype(("V", checked.shape[1]))).reshape(-1).tolist()  # type: ignore[assignment]
    crcs = [crc32(part) for part in each]
    files[:, check + 4 : check + 8] = big_endian(np.array(crcs, np.uint32))
    return files


def letter_rows(pixels: NDArray[np.uint8], before: bytes = b"", after: bytes = b"") -> NDArray[np.uint8]:
    """Files of small pictures (N, H, W, C) in base64, each between two texts, as letters (N, W).

    The beginnings of all files are equal, and a multiple of three bytes: they are encoded once.
    """
    begin = layout(*pixels.shape[1:]).pixels
    files = stored_files(pixels)
    before += base64.b64encode(files[0, :begin].tobytes())
    middle = base64_letters(files[:, begin:])
    n, width = middle.shape
    rows = np.empty((n, len(before) + width + len(after)), np.uint8)
    rows[:, : len(before)] = np.frombuffer(before, np.uint8)
    rows[:, len(before) : len(before) + width] = middle
    rows[:, len(before) + width :] = np.frombuffer(after, np.uint8)
    return rows


def base64_letters(files: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Letters (N, W) of files of one length (N, L), by one call; letters of zeros behind each become `=`."""
    n, length = files.shape
    missing = -length % 3
    whole = np.zeros((n, length + missing), np.uint8)
    whole[:, :length] = files
    letters = np.frombuffer(bytearray(binascii.b2a_base64(whole.data, newline=False)), np.uint8).reshape(n, -1)
    letters[:, letters.shape[1] - missing :] = ord("=")
    return letters


def filtered(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lines (N, H, 1 + W * C), each of which begins with its filter, 0."""
    n, height, width, channels = pixels.shape
    lines = np.zeros((n, height, 1 + width * channels), np.uint8)
    lines[:, :, 1:] = pixels.reshape(n, height, -1)
    return lines


def frame(height: int, width: int, channels: int) -> tuple[bytes, bytes]:
    """Bytes of a file before and after the chunk of its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, KINDS[channels], 0, 0, 0))
    return SIGNATURE + head, chunk(b"IEND", b"")


def big_endian(numbers: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Numbers (N,) as four bytes each (N, 4)."""
    return numbers.astype(">u4").view(np.uint8).reshape(-1, 4)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
