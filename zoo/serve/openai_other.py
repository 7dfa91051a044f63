"""`/v1/models`, `/v1/embeddings` and `/v1/images/generations`."""

import asyncio
import base64
import struct
import time
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval, MaxLen
from torch import Tensor

from zoo.core.spaces import Image
from zoo.serve.describe import text_length
from zoo.serve.errors import invalid
from zoo.serve.media import if_brief
from zoo.serve.openai_types import Ids, ModelName, Seed
from zoo.serve.sampling import draw, fresh_seed
from zoo.serve.schema import Request, write_json
from zoo.serve.service import Service, Written, endpoint
from zoo.viz.png import joined_pngs

# -- models --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A model."""

    id: str
    created: int
    object: str = "model"
    owned_by: str = "zoo"


@dataclass(frozen=True, kw_only=True)
class ModelList:
    """All models."""

    data: list[ModelCard]
    object: str = "list"


@endpoint("GET", "/v1/models")
async def list_models(service: Service) -> ModelList:
    """List the models."""
    return ModelList(data=[ModelCard(id=s.name, created=s.created) for s in service.pool.sources.values()])


@endpoint("GET", "/v1/models/{model}")
async def retrieve_model(service: Service, model: str) -> ModelCard:
    """Look up one model."""
    source = service.pool.source(model)
    return ModelCard(id=source.name, created=source.created)


# -- embeddings ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EmbeddingRequest(Request):
    """A request for vectors of texts.

    Args:
        model: one with the ability `embed`.
        input: one text or several, or their token ids.
        encoding_format: numbers, or little-endian float32 in base64.
    """

    model: ModelName
    input: str | Ids | list[str] | list[Ids]
    encoding_format: Literal["float", "base64"] = "float"
    ignored = ("user",)
    unsupported = {"dimensions": ()}  # noqa: RUF012


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """The vector of one text."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


@dataclass(frozen=True, kw_only=True)
class EmbeddingUsage:
    """Number of tokens."""

    prompt_tokens: int
    total_tokens: int


@dataclass(frozen=True, kw_only=True)
class EmbeddingList:
    """Vectors in the order of the texts."""

    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    object: str = "list"


@endpoint("POST", "/v1/embeddings")
async def embeddings(service: Service, body: EmbeddingRequest) -> EmbeddingList:
    """Embed texts."""
    given: list[Any] = body.input if isinstance(body.input, list) else [body.input]
    if given and isinstance(given[0], int):
        given = [given]
    limits = service.limits
    if not given:
        raise invalid("input=[]: empty. Send at least one text.", "input")
    if len(given) > limits.prompts:
        raise invalid(f"input: more than {limits.prompts} texts. Send several requests.", "input", "too_long")
    if sum(map(len, given)) > limits.prompt:
        raise invalid(f"input: longer than {limits.prompt} characters. Shorten it.", "input", "too_long")

    def run(model: Any) -> tuple[list[list[float]], int]:
        size = model.tokenizer.vocab_size
        if any(isinstance(item, list) and (not item or max(item) >= size) for item in given):
            raise invalid(f"input: token ids must be from 0 to {size - 1}, and at least one. Correct them.", "input")
        texts = [item if isinstance(item, str) else model.tokenizer.decode(item) for item in given]
        with torch.no_grad():
            vectors = model.embed(texts)
        return vectors.float().cpu().tolist(), sum(len(model.tokenizer.encode_prompt(text)) for text in texts)

    async with service.pool.use(body.model) as engine:
        if "embed" not in engine.model.abilities:
            raise invalid(f"model={body.model}: it does not embed texts. Choose another model.", "model", "unsupported")
        vectors, n = await engine.call(run)
    service.metrics.prompt_tokens.labels(body.model).inc(n)
    packed: list[Any] = [as_base64(v) for v in vectors] if body.encoding_format == "base64" else vectors
    return EmbeddingList(
        data=[Embedding(index=i, embedding=vector) for i, vector in enumerate(packed)],
        model=body.model,
        usage=EmbeddingUsage(prompt_tokens=n, total_tokens=n),
    )


def as_base64(vector: list[float]) -> str:
    """Little-endian float32, base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


# -- pictures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ImageRequest(Request):
    """A request for pictures.

    Args:
        model: one that generates pictures.
        prompt: description, for a model that is conditioned on texts; else the number of a class. Nothing leaves it to
            the model.
        n: number of pictures.
        size: WIDTHxHEIGHT of the model, or auto.
        response_format: only b64_json, a PNG.
        seed: equal seeds give equal pictures. Not part of the original.
        options: of the model's sampler. Not part of the original.
    """

    model: ModelName
    prompt: Annotated[str, MaxLen(1000)] = ""
    n: Annotated[int | None, Interval(ge=1, le=512)] = None
    size: Annotated[str | None, MaxLen(20)] = None
    response_format: Literal["b64_json"] | None = None
    seed: Seed = None
    options: dict[str, Any] = field(default_factory=dict)
    ignored = ("user", "quality", "style", "moderation")
    unsupported = {"background": ("auto",), "output_format": ("png",), "output_compression": (), "stream": (False,)}  # noqa: RUF012


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """A picture: PNG, base64."""

    b64_json: str


@dataclass(frozen=True, kw_only=True)
class ImageList:
    """Pictures; `seed` gives the same ones again."""

    created: int
    data: list[ImageData]
    size: str
    seed: int
    output_format: str = "png"


def described_by(model: Any, prompt: str) -> tuple[int | None, str | None]:
    """A prompt as the number of a class, or as a text for models that are conditioned on texts.

    Raises:
        APIError: not a number, for other models.
    """
    written = prompt.strip()
    if not written or text_length(model) is not None:
        return None, prompt if written else None
    if not (written.isascii() and written.isdecimal() and len(written) < 10):
        raise invalid(f"prompt={written}: not the number of a class. Give one, or nothing.", "prompt")
    return int(written), None


@endpoint("POST", "/v1/images/generations")
async def generate_images(service: Service, body: ImageRequest) -> ImageList | Written:
    """Generate pictures."""
    async with service.pool.use(body.model) as engine:
        space = engine.model.spec.x
        if not isinstance(space, Image) or "sample" not in engine.model.abilities:
            raise invalid(f"model={body.model}: it does not generate pictures.", "model", "unsupported")
        size = f"{space.width}x{space.height}"
        if body.size not in (None, "auto", size):
            raise invalid(f"size={body.size}: the model generates {size}. Leave it out.", "size")
        label, prompt = described_by(engine.model, body.prompt)
        seed = fresh_seed(body.seed)
        drawn = await draw(
            service, engine, n=body.n or 1, label=label, prompt=prompt, seed=seed, options=body.options,
            finish=if_brief(image_objects),
        )  # fmt: skip
    objects = await asyncio.to_thread(image_objects, drawn) if isinstance(drawn, torch.Tensor) else drawn
    service.metrics.images.labels(body.model).inc(body.n or 1)
    answer = write_json(ImageList(created=int(time.time()), data=[], size=size, seed=seed))
    return Written(answer.replace(b'"data":[]', b'"data":[' + objects + b"]", 1))


def image_objects(x: Tensor) -> bytes:
    """Pictures (N, C, H, W) as the JSON of `ImageData`, with commas: as objects one by one they take twice the time."""
    return joined_pngs(x, b'{"b64_json":"', b'"},')[:-1]
