"""PNG files are read by Pillow as the pixels that were written."""

import base64
import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.viz.images import BROKEN, bytes_of, pixels_of
from zoo.viz.png import STORED, base64_letters, joined_pngs, png_files, pngs, stored_files

SIZES = [(1, 1, 1), (8, 8, 1), (5, 3, 3), (32, 32, 3), (1, 600, 1), (255, 2, 3), (300, 200, 3)]


def pixels(height, width, channels, n=3):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_pillow_reads_the_pixels(size):
    given = pixels(*size)
    for file, wanted in zip(png_files(given), given, strict=True):
        found = Image.open(io.BytesIO(file))
        assert found.mode == ("L" if size[2] == 1 else "RGB")
        found.load()  # checks every checksum
        assert np.array_equal(np.asarray(found).reshape(size), wanted)


def test_a_changed_byte_is_noticed():
    """Negative control: the checksums are those of the content."""
    file = bytearray(png_files(pixels(8, 8, 1))[0])
    file[45] ^= 1
    with pytest.raises((OSError, SyntaxError)):
        Image.open(io.BytesIO(bytes(file))).load()


@pytest.mark.parametrize("value", [0, 1, 254, 255])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, STORED - 1, 1), (31, 32, 1), (18, 18, 3)])
def test_checksums_at_the_ends_of_the_range(value, size):
    """The sums of Adler-32 are largest for white pictures of the largest stored size."""
    given = np.full((2, *size), value, np.uint8)
    for file in stored_files(given):
        at = 8 + 25 + 8  # behind the signature, the header, and the length and name of the chunk
        length = int.from_bytes(file[33:37].tobytes(), "big")
        data = file[at : at + length].tobytes()
        lines = np.zeros((size[0], 1 + size[1] * size[2]), np.uint8)
        lines[:, 1:] = value
        assert zlib.decompress(data) == lines.tobytes()
        assert int.from_bytes(data[-4:], "big") == zlib.adler32(lines.tobytes())


@pytest.mark.parametrize("length", [1, 2, 3, 140, 141, 142])
def test_base64_of_all_is_that_of_each(length):
    files = np.random.default_rng(0).integers(0, 256, (5, length), np.uint8)
    letters = base64_letters(files)
    assert [row.tobytes() for row in letters] == [base64.b64encode(file.tobytes()) for file in files]


@pytest.mark.parametrize("size", SIZES)
def test_all_texts_at_once_are_those_of_each_file(size):
    """Small pictures share the letters of their beginning; another first picture is the negative control."""
    x = torch.from_numpy(pixels(*size)).permute(0, 3, 1, 2) / 255
    wanted = [base64.b64encode(file) for file in png_files(bytes_of(x))]
    assert [text.encode() for text in pngs(x)] == wanted
    assert joined_pngs(x, b"<", b">,") == b"".join(b"<" + each + b">," for each in wanted)
    assert joined_pngs(1 - x, b"", b"") != joined_pngs(x, b"", b"")


def test_smooth_pictures_are_compressed():
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, None, :, None], (1, 256, 1, 1))
    assert len(png_files(ramp)[0]) < ramp.size / 20


def test_small_pictures_are_stored_and_no_larger_ones():
    """An IDAT of stored blocks begins with the bytes 0 or 1 after zlib's two; of noise, compression saves nothing."""
    for (height, width), stored in {(8, 8): True, (32, 31): True, (32, 32): False}.items():
        (file,) = png_files(np.zeros((1, height, width, 1), np.uint8))
        block = file[33 + 8 + 2]
        assert (block in (0, 1)) == stored, (height, width)
        assert (len(file) > height * width) == stored


def test_bytes_are_rounded_once_and_the_tensor_stays():
    x = torch.tensor([-1.0, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, float("inf"), -float("inf"), 2.0]).view(1, 1, 2, 4)
    kept = x.clone()
    assert bytes_of(x)[0, ..., 0].tolist() == [[0, 0, 0, 1], [255, 255, 0, 255]]
    assert torch.equal(x, kept)
    assert bytes_of(x.expand(1, 3, 2, 4)).shape == (1, 2, 4, 3)
    assert bytes_of(x.expand(1, 2, 2, 4).nan_to_num()).shape == (1, 2, 4, 1)
    x[0, 0, 0, 0] = float("nan")
    assert bytes_of(x)[0, 0, 0].tolist() == list(BROKEN), "colours mark what is not a number"
    assert bytes_of(x)[0, 1, 0].tolist() == [255] * 3


def test_grey_pictures_have_one_channel_and_others_three():
    grey, colours = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    for x, mode in ((grey, "L"), (colours, "RGB")):
        for text, wanted in zip(pngs(x), pixels_of(x), strict=True):
            found = Image.open(io.BytesIO(base64.b64decode(text)))
            assert found.mode == mode
            assert np.array_equal(np.asarray(found.convert("RGB")), wanted)
