"""Samples in JSON: pictures as PNG, videos as GIF, sound as WAV, rows as fields of a table, others as numbers."""

import asyncio
import base64
import binascii
import io
import math
import wave
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import torch
from annotated_types import MaxLen
from torch import Tensor

from zoo.core.space import Space
from zoo.core.spaces import Audio, Image, Table, Video, tokens_of
from zoo.data.image import decode
from zoo.data.table.rows import texts_of
from zoo.data.video.video_file import read_video
from zoo.serve.errors import invalid
from zoo.serve.limits import Limits
from zoo.viz.animation import Animation, gif, gif_rate
from zoo.viz.images import pixels_of
from zoo.viz.png import pngs

FORMATS = ("PNG", "JPEG", "WEBP")  # of uploads
BRIEF = 2**15  # numbers that are encoded sooner than another thread begins
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One sample. Exactly one field is set.

    Args:
        image: a picture, base64; PNG in answers, also JPEG or WebP in requests.
        video: GIF, base64; also animated PNG or WebP in requests.
        audio: WAV, base64.
        text: of a language model.
        row: of a table, only in answers: field by column, empty where it is missing.
        values: numbers of any space, nested as its shape.
    """

    image: Annotated[str, MaxLen(12_000_000)] | None = None
    video: Annotated[str, MaxLen(12_000_000)] | None = None
    audio: Annotated[str, MaxLen(12_000_000)] | None = None
    text: Annotated[str, MaxLen(200_000)] | None = None
    row: dict[str, str] | None = None
    values: list[Any] | None = None

    omitted_if_none = ("image", "video", "audio", "text", "row", "values")


# -- answers -----------------------------------------------------------------------------------------------------


async def encoded(function: Callable[..., T], *given: Any) -> T:
    """Call a function that encodes tensors; in another thread, unless they are small."""
    if sum(x.numel() for x in given if isinstance(x, Tensor)) <= BRIEF:
        return function(*given)
    return await asyncio.to_thread(function, *given)


def if_brief(function: Callable[[Tensor], T]) -> Callable[[Tensor], T | Tensor]:
    """A function that encodes small tensors, and leaves larger ones as they are.

    A model's thread does so after sampling: small samples are still in the processor's cache, and the event loop has
    other work. Larger ones are encoded in another thread, while the model draws the next.
    """
    return lambda x: function(x) if x.numel() <= BRIEF else x


def to_items(space: Space, x: Tensor, as_values: bool = False, tokenizer: Any = None) -> list[Item]:
    """Samples (N, *shape) as items."""
    x = x.detach().cpu()
    if as_values:
        return [Item(values=each.tolist() if each.ndim else [each.item()]) for each in x]
    if isinstance(space, Image):
        return [Item(image=each) for each in pngs(x)]
    if isinstance(space, Video):
        moving = [Animation(pixels_of(each), space.frame_rate) for each in x]
        return [Item(video=base64.b64encode(gif(each, pause=0)).decode()) for each in moving]
    if isinstance(space, Audio):
        return [Item(audio=wav(each, space.sample_rate)) for each in x]
    if isinstance(space, Table):
        heading, rows = texts_of(space, x)
        return [Item(row=dict(zip(heading, row, strict=True))) for row in rows]
    if tokens_of(space) is not None and tokenizer is not None:
        return [Item(text=tokenizer.decode([t for t in row if t >= 0])) for row in x.tolist()]
    return to_items(space, x, as_values=True)


def wav(x: Tensor, rate: int) -> str:
    """A waveform (C, T) in [-1, 1] as WAV of 16 bits, base64."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(len(x))
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((x.clamp(-1, 1) * 32767).round().short().T.contiguous().numpy().astype("<i2").tobytes())
    return base64.b64encode(file.getvalue()).decode()


# -- requests ------------------------------------------------------------------------------------------------------


def from_items(space: Space, items: list[Item], limits: Limits, param: str = "items") -> Tensor:
    """Samples (N, *shape) of items.

    Raises:
        APIError: a damaged or too large picture, or numbers that are not in the space.
    """
    found = []
    for i, item in enumerate(items):
        at = f"{param}[{i}]"
        given = [name for name in item.omitted_if_none if getattr(item, name) is not None]
        if len(given) != 1:
            raise invalid(f"{at}: exactly one of image, video, audio, text and values must be set. Correct it.", at)
        if item.image is not None and isinstance(space, Image):
            found.append(picture(item.image, space, limits, at))
        elif item.video is not None and isinstance(space, Video):
            found.append(clip(item.video, space, limits, at))
        elif item.values is not None:
            found.append(numbers(item.values, space, at))
        else:
            raise invalid(f"{at}.{given[0]}: the model reads {space}. Send an image or values.", at)
    x = torch.stack(found)
    try:
        space.validate(x)
    except Exception as error:
        raise invalid(f"{param}: {error}", param) from error
    return x


def picture(text: str, space: Image, limits: Limits, at: str = "image") -> Tensor:
    """Decode an uploaded picture to (C, H, W) on the levels of the space.

    Raises:
        APIError: not base64, not a picture, or too many pixels.
    """
    data = uploaded(text, at)
    size = space.height, space.width
    try:
        file = io.BytesIO(data)
        x = decode.read(file, size, space.channels, formats=FORMATS, max_pixels=limits.pixels)
    except Exception as error:  # a damaged file may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise invalid(f"{at}: not a picture that can be read ({reason}). Send a PNG, JPEG or WebP file.", at) from error
    return (x.float() / 255 * (space.levels - 1)).round() / (space.levels - 1)


def clip(text: str, space: Video, limits: Limits, at: str = "video") -> Tensor:
    """Decode an uploaded video to its first frames, (F, C, H, W) on the levels of the space.

    Raises:
        APIError: not base64, not a video, too many pixels, or too few frames.
    """
    file, size = io.BytesIO(uploaded(text, at)), (space.height, space.width)
    try:
        x = read_video(
            file, size, space.channels, gif_rate(space.frame_rate), most=space.frames, max_pixels=limits.pixels
        )
    except Exception as error:  # a damaged file may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise invalid(f"{at}: not a video that can be read ({reason}). Send a GIF, PNG or WebP file.", at) from error
    if len(x) < space.frames:
        raise invalid(f"{at}: {len(x)} frames at {space.frame_rate} per second. Send {space.frames} or more.", at)
    return (x.float() / 255 * (space.levels - 1)).round() / (space.levels - 1)


def uploaded(text: str, at: str) -> bytes:
    """Contents of a file in base64, which may be a data URL.

    Raises:
        APIError: not base64.
    """
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise invalid(f"{at}: not base64. Encode the file.", at) from None


def numbers(values: list[Any], space: Space, at: str = "values", shape: tuple[int, ...] | None = None) -> Tensor:
    """Numbers nested as the shape of a space.

    Raises:
        APIError: another shape, or something else than numbers.
    """
    shape = space.shape if shape is None else shape
    flat: list[float] = []
    _flatten(values, shape, flat, at)
    whole = tokens_of(space) is not None or space.registered_name == "codes"
    if whole and not all(float(v).is_integer() for v in flat):
        raise invalid(f"{at}: token ids must be integers. Correct them.", at)
    return torch.tensor(flat, dtype=torch.int64 if whole else torch.float32).view(shape)


def _flatten(values: Any, shape: tuple[int, ...], flat: list[float], at: str) -> None:
    if not shape:
        if type(values) not in (int, float) or not math.isfinite(values) or abs(values) > 1e30:
            raise invalid(f"{at}: must hold finite numbers. Correct it.", at)
        flat.append(values)
        return
    if not isinstance(values, list) or len(values) != shape[0]:
        raise invalid(f"{at}: must be nested as {'x'.join(map(str, shape))}. Correct it.", at)
    for value in values:
        _flatten(value, shape[1:], flat, at)
