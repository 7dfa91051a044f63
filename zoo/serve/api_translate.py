"""`/api/translate` and `/api/stylize`: a picture as one of another kind, or in the style of another one."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.data.loader import make_generator
from zoo.serve.api_samples import Samples
from zoo.serve.api_types import Count, Format, items_of, space_name
from zoo.serve.media import Item, encoded, from_items, to_items
from zoo.serve.openai_types import ModelName, Seed
from zoo.serve.sampling import check_size, checked_options, fresh_seed, require
from zoo.serve.schema import Request
from zoo.serve.service import Service, endpoint


@dataclass(frozen=True, kw_only=True)
class TranslateRequest(Request):
    """A request for the image of another kind.

    Args:
        model: one with the ability `translate`.
        item: a picture; it is read as those that the model translates.
        n: number of results.
        seed: see `SampleRequest`.
        options: of the method, such as reverse, which goes back.
        format: see `SampleRequest`.
    """

    model: ModelName
    item: Item
    n: Count = 1
    seed: Seed = None
    options: dict[str, Any] = field(default_factory=dict)
    format: Format = "auto"


@endpoint("POST", "/api/translate")
async def translate(service: Service, body: TranslateRequest) -> Samples:
    """Turn a picture into one of another kind."""
    seed = fresh_seed(body.seed)
    async with service.pool.use(body.model) as engine:
        require(engine, "translate")
        model: Any = engine.model
        options = checked_options(model.translate, body.options)
        reverse = bool(options.get("reverse"))
        read_as = model.source_space(reverse=reverse)
        target = model.source_space() if reverse else model.spec.x
        check_size(service, body.n, body.n * target.size)
        x = await asyncio.to_thread(from_items, read_as, [body.item], service.limits, "item")
        rows = x.expand(body.n, *read_as.shape).to(model.device)

        def run(model: Any) -> Tensor:
            with torch.no_grad():
                found: Tensor = model.translate(rows, generator=make_generator(seed), **options)
                return found.cpu()

        samples = await encoded(to_items, target, await engine.call(run), body.format == "values")
        return Samples(model=body.model, space=str(target.registered_name), seed=seed, samples=samples)


@dataclass(frozen=True, kw_only=True)
class StylizeRequest(TranslateRequest):
    """A request for a picture in the style of another one.

    Args:
        model: one with the ability `stylize`.
        item: the picture.
        style: a picture that has the style.
    """

    style: Item


@endpoint("POST", "/api/stylize")
async def stylize(service: Service, body: StylizeRequest) -> Samples:
    """Transfer the style of one picture to another."""
    seed = fresh_seed(body.seed)
    async with service.pool.use(body.model) as engine:
        require(engine, "stylize")
        model: Any = engine.model
        options = checked_options(model.stylize, body.options)
        check_size(service, body.n, body.n * model.spec.size)
        given = []
        for name in ("item", "style"):
            x = await asyncio.to_thread(from_items, model.spec.x, [getattr(body, name)], service.limits, name)
            given.append(x.expand(body.n, *model.spec.shape).to(model.device))

        def run(model: Any) -> Tensor:
            found: Tensor = model.stylize(*given, generator=make_generator(seed), **options)
            return found.detach().cpu()

        samples = await items_of(engine, await engine.call(run), body.format)
        return Samples(model=body.model, space=space_name(engine), seed=seed, samples=samples)
