"""`/api/encode`, `/api/decode` and `/api/reconstruct`."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Len
from torch import Tensor

from zoo.serve.api_types import Format, ItemsAnswer, ItemsRequest, Labels, given_labels, items_of, on_device, space_name
from zoo.serve.errors import invalid
from zoo.serve.media import from_items
from zoo.serve.openai_types import ModelName
from zoo.serve.sampling import check_size, require
from zoo.serve.schema import Request
from zoo.serve.service import Service, endpoint


@dataclass(frozen=True, kw_only=True)
class Latents:
    """Latent vectors."""

    model: str
    latents: list[list[float]]


@endpoint("POST", "/api/encode")
async def encode(service: Service, body: ItemsRequest) -> Latents:
    """Encode samples as latent vectors."""
    async with service.pool.use(body.model) as engine:
        require(engine, "latents")
        model: Any = engine.model
        y = given_labels(model, body.labels, len(body.items))
        x = await asyncio.to_thread(from_items, model.spec.x, body.items, service.limits)

        def run(model: Any) -> list[list[float]]:
            with torch.no_grad():
                found: list[list[float]] = (
                    model.encode(x.to(model.device), on_device(model, y)).flatten(1).cpu().tolist()
                )
                return found

        return Latents(model=body.model, latents=await engine.call(run))


@endpoint("POST", "/api/reconstruct")
async def reconstruct(service: Service, body: ItemsRequest) -> ItemsAnswer:
    """Encode samples, and decode them again."""
    async with service.pool.use(body.model) as engine:
        require(engine, "latents")
        model: Any = engine.model
        y = given_labels(model, body.labels, len(body.items))
        x = await asyncio.to_thread(from_items, model.spec.x, body.items, service.limits)

        def run(model: Any) -> Tensor:
            with torch.no_grad():
                found: Tensor = model.reconstruct(x.to(model.device), on_device(model, y))
                return found.cpu()

        samples = await items_of(engine, await engine.call(run), body.format)
        return ItemsAnswer(model=body.model, space=space_name(engine), samples=samples)


@dataclass(frozen=True, kw_only=True)
class DecodeRequest(Request):
    """A request to decode latent vectors.

    Args:
        model: one with the ability `latents`.
        latents: vectors as `/api/encode` gives them.
        labels: class of each, for a conditional model.
        format: see `SampleRequest`.
    """

    model: ModelName
    latents: Annotated[list[Annotated[list[float], Len(1, 1_000_000)]], Len(1, 64)]
    labels: Labels = None
    format: Format = "auto"


@endpoint("POST", "/api/decode")
async def decode(service: Service, body: DecodeRequest) -> ItemsAnswer:
    """Decode latent vectors to samples."""
    if len({len(row) for row in body.latents}) > 1:
        raise invalid("latents: vectors of different lengths. Correct them.", "latents")
    async with service.pool.use(body.model) as engine:
        require(engine, "latents")
        model: Any = engine.model
        n = len(body.latents)
        check_size(service, n, n * model.spec.size)
        y = given_labels(model, body.labels, n)
        z = torch.tensor(body.latents)

        def run(model: Any) -> Tensor:
            with torch.no_grad():
                example = torch.zeros(1, *model.spec.shape, device=model.device)
                label = torch.zeros(1, dtype=torch.int64, device=model.device) if model.conditional else None
                width = model.encode(example, label).flatten(1).shape[1]
                if width != z.shape[1]:
                    raise invalid(f"latents: vectors of {z.shape[1]} numbers, not {width}. Correct them.", "latents")
                found: Tensor = model.decode(z.to(model.device), on_device(model, y))
                return found.cpu()

        samples = await items_of(engine, await engine.call(run), body.format)
        return ItemsAnswer(model=body.model, space=space_name(engine), samples=samples)
