"""`/api/listen`: texts of music as sound and piano rolls."""

import asyncio
import base64
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Len, MaxLen

from zoo.serve.errors import invalid
from zoo.serve.media import Item, wav
from zoo.serve.openai_types import ModelName
from zoo.serve.schema import Request
from zoo.serve.service import Service, endpoint
from zoo.viz.png import png_files
from zoo.viz.render import is_heard, renderer_of


@dataclass(frozen=True, kw_only=True)
class ListenRequest(Request):
    """A request to hear texts.

    Args:
        model: of a space of texts that is heard, such as voices.
        texts: as the model writes them.
    """

    model: ModelName
    texts: Annotated[list[Annotated[str, MaxLen(50_000)]], Len(1, 16)]


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Sounds of texts, and their pictures."""

    model: str
    audio: list[Item]
    pictures: list[Item]


@endpoint("POST", "/api/listen")
async def listen(service: Service, body: ListenRequest) -> Heard:
    """Turn texts of music into sound and piano rolls."""
    async with service.pool.use(body.model) as engine:
        model: Any = engine.model
        if not is_heard(model.spec.x):
            raise invalid(f"model={body.model}: its texts are not heard.", "model", "unsupported")
        found = [await asyncio.to_thread(heard, model, text, service.limits.tokens) for text in body.texts]
    return Heard(model=body.model, audio=[sound for sound, _ in found], pictures=[picture for _, picture in found])


def heard(model: Any, text: str, most: int) -> tuple[Item, Item]:
    """A text as sound and picture.

    Raises:
        APIError: without tokens, or with too many.
        DataError: not a text of the space.
    """
    ids = model.tokenizer.encode(text)
    if not 0 < len(ids) <= most:
        raise invalid(f"texts: one has {len(ids)} tokens. Send between 1 and {most}.", "texts")
    renderer, x = renderer_of(model.spec.x), torch.tensor(ids)
    sound = renderer.sound(x[None])
    assert sound is not None
    (file,) = png_files(renderer.single(x)[None])
    return Item(audio=wav(sound.wave, sound.rate)), Item(image=base64.b64encode(file).decode())
