"""`/api/caption` and `/api/answer`: texts about a picture."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from annotated_types import Len

from zoo.data.loader import make_generator
from zoo.serve.api_fill import Texts
from zoo.serve.api_types import Count
from zoo.serve.media import Item, from_items
from zoo.serve.openai_types import ModelName, Seed
from zoo.serve.sampling import checked_options, fresh_seed, require
from zoo.serve.schema import Request
from zoo.serve.service import Service, endpoint


@dataclass(frozen=True, kw_only=True)
class CaptionRequest(Request):
    """A request for texts that describe a picture.

    Args:
        model: one with the ability `caption`.
        item: the picture.
        n: number of captions.
        seed: equal seeds give equal captions, also those of `zoo caption`.
        options: of the method, such as temperature.
    """

    model: ModelName
    item: Item
    n: Count = 1
    seed: Seed = None
    options: dict[str, Any] = field(default_factory=dict)


@endpoint("POST", "/api/caption")
async def caption(service: Service, body: CaptionRequest) -> Texts:
    """Describe a picture."""
    seed = fresh_seed(body.seed)
    async with service.pool.use(body.model) as engine:
        require(engine, "caption")
        model: Any = engine.model
        options = checked_options(model.caption, body.options)
        x = await asyncio.to_thread(from_items, model.spec.x, [body.item], service.limits, "item")
        rows = x.expand(body.n, *model.spec.shape).to(model.device)

        def run(model: Any) -> list[str]:
            with torch.no_grad():
                found: list[str] = model.caption(rows, generator=make_generator(seed), **options)
                return found

        return Texts(model=body.model, seed=seed, texts=await engine.call(run))


@dataclass(frozen=True, kw_only=True)
class AnswerRequest(Request):
    """A request for answers to questions about a picture.

    Args:
        model: one with the ability `answer`.
        item: the picture.
        questions: texts.
    """

    model: ModelName
    item: Item
    questions: Annotated[list[Annotated[str, Len(1, 1000)]], Len(1, 64)]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """An answer to each question."""

    model: str
    answers: list[str]


@endpoint("POST", "/api/answer")
async def answer(service: Service, body: AnswerRequest) -> Answers:
    """Answer questions about a picture."""
    async with service.pool.use(body.model) as engine:
        require(engine, "answer")
        model: Any = engine.model
        x = await asyncio.to_thread(from_items, model.spec.x, [body.item], service.limits, "item")

        def run(model: Any) -> list[str]:
            with torch.no_grad():
                (found,) = model.answer(x.to(model.device), body.questions)
                return list(found)

        return Answers(model=body.model, answers=await engine.call(run))
