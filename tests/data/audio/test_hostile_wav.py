"""Broken WAV files are refused by their names."""

import struct
import sys

import pytest

from zoo.core.errors import DataError
from zoo.data.audio.audio_file import read_audio


def wav(data: bytes, rate: int = 8000, channels: int = 1) -> bytes:
    """A WAV file of 16 bits, whose header gives the largest sizes, as a program does that writes to a pipe."""
    header = struct.pack("<HHIIHH", 1, channels, rate, 0, 2 * channels, 16)
    huge = struct.pack("<I", 0xFFFFFFFF)
    return b"RIFF" + huge + b"WAVEfmt " + struct.pack("<I", 16) + header + b"data" + huge + data


@pytest.mark.parametrize(
    "content", [wav(b""), wav(bytes(8), rate=0), wav(bytes(8), rate=2**32 - 1), wav(bytes(8), channels=99)]
)
def test_a_sound_without_samples_or_with_an_absurd_rate_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"^bad\.wav: "):
        read_audio(content, "bad.wav")


@pytest.mark.parametrize("content", [b"RIFF", b"RIFF1234WAVEnothing", b"a text"])
def test_a_damaged_file_needs_no_library(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(DataError, match=r"^bad\.wav: not a sound"):
        read_audio(content, "bad.wav")


def test_a_huge_size_in_the_header_reads_what_there_is() -> None:
    assert read_audio(wav(bytes(8)), "good.wav")[0].shape == (1, 4)
