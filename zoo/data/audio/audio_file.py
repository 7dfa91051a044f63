"""Sound files as tensors: WAV by Python's standard library, other formats by `soundfile`."""

import io
import math
import wave
from pathlib import Path

import torch
from scipy.signal import resample_poly
from torch import Tensor

from zoo.core.errors import ConfigError, DataError

FASTEST = 1_000_000  # samples per second
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def read_audio(file: Path | bytes, name: str) -> tuple[Tensor, int]:
    """Read a sound: float32 (C, N) in [-1, 1], and its samples per second.

    Args:
        file: path, or contents.
        name: for messages, with the suffix.

    Raises:
        ConfigError: the file needs soundfile, which is not installed.
        DataError: not a sound, without samples, or with a rate or samples that cannot be.
    """
    content = file if isinstance(file, bytes) else file.read_bytes()
    x, rate = _decoded(content, name)
    if not 1 <= rate <= FASTEST:
        raise DataError(f"{name}: {rate:,} samples per second, not from 1 to {FASTEST:,}. Remove or replace it.")
    if not x.numel() or not bool(x.isfinite().all()):
        raise DataError(f"{name}: {'samples are not finite' if x.numel() else 'no samples'}. Remove or replace it.")
    return x, rate


def _decoded(content: bytes, name: str) -> tuple[Tensor, int]:
    """Samples float32 (C, N) and their number per second, as the file has them."""
    damaged = None
    if name.lower().endswith(".wav"):
        try:
            return read_wav(content)
        except (wave.Error, EOFError) as error:
            if "unknown format" not in str(error):  # float samples
                damaged = DataError(f"{name}: not a sound ({reason(error)}). Remove or replace it.")
    try:
        import soundfile
    except ImportError:
        if damaged:
            raise damaged from None
        raise ConfigError(
            f"{name}: needs soundfile, which is not installed. pip install 'generative-zoo[audio]'."
        ) from None
    try:
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"{name}: not a sound ({reason(error)}). Remove or replace it.") from None
    return torch.from_numpy(samples.T.copy()), int(rate)


def reason(error: Exception) -> str:
    """The text of an error as a part of a sentence; of soundfile's, without the address of the file in memory."""
    return str(getattr(error, "error_string", error)).rstrip(".") or "it ends early"


def read_wav(content: bytes) -> tuple[Tensor, int]:
    """Read a WAV file of 8, 16, 24 or 32 bits: float32 (C, N), and its samples per second.

    Raises:
        wave.Error: another kind of file.
        EOFError: it ends early.
    """
    with wave.open(io.BytesIO(content)) as file:
        channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
        if width > 4:
            raise wave.Error(f"{8 * width} bits a sample.")
        raw = bytearray(file.readframes(file.getnframes()))
    del raw[len(raw) // (width * channels) * width * channels :]
    samples = torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.zeros(0, dtype=torch.uint8)
    if width == 1:
        level = samples.int() - 128  # 8 bits are unsigned
    else:
        parts = samples.view(-1, width).long()  # little-endian
        level = (parts << 8 * torch.arange(width)).sum(1)
        level = torch.where(level >= 1 << (8 * width - 1), level - (1 << 8 * width), level)
    return (level.double() / (1 << (8 * width - 1))).float().view(-1, channels).T.contiguous(), rate


def resample(x: Tensor, rate: int, wanted: int) -> Tensor:
    """Change the samples per second of (C, N) by a polyphase filter, which removes frequencies that do not fit."""
    if rate == wanted:
        return x
    common = math.gcd(rate, wanted)
    return torch.from_numpy(resample_poly(x.numpy(), wanted // common, rate // common, axis=-1)).float()


def normalised(x: Tensor, decibels: float | None) -> Tensor:
    """Sound (C, N) without its mean, at a loudness: the root mean square in decibels below full scale; None keeps it.

    It is quieter where its peak would exceed full scale.
    """
    if decibels is None:
        return x
    x = x - x.mean(1, keepdim=True)
    level, peak = float(x.square().mean().sqrt()), float(x.abs().max()) if x.numel() else 0.0
    return x if level == 0 else x * min(10 ** (decibels / 20) / level, 1 / peak)
