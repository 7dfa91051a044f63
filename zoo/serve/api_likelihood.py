"""`/api/likelihood`."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Interval

from zoo.serve.api_types import Items, Labels, given_labels, on_device
from zoo.serve.engine import Engine
from zoo.serve.errors import invalid
from zoo.serve.jobs import TextParams, score
from zoo.serve.media import from_items
from zoo.serve.openai_types import ModelName
from zoo.serve.sampling import require
from zoo.serve.schema import Request
from zoo.serve.service import Service, endpoint


@dataclass(frozen=True, kw_only=True)
class LikelihoodRequest(Request):
    """A request to score samples or texts.

    Args:
        model: one with the ability `likelihood`.
        items: samples in the model's space; texts for a language model.
        labels: class of each item, for a conditional model.
        k: importance samples of a bound.
    """

    model: ModelName
    items: Items
    labels: Labels = None
    k: Annotated[int, Interval(ge=1, le=1000)] = 1


@dataclass(frozen=True, kw_only=True)
class LikelihoodValues:
    """One kind of likelihood, in nats for each item; never compare discrete with continuous ones."""

    name: str
    kind: str
    exact: bool
    log_likelihood: list[float | None]


@dataclass(frozen=True, kw_only=True)
class Likelihoods:
    """All kinds that the model offers."""

    model: str
    likelihoods: list[LikelihoodValues]


@endpoint("POST", "/api/likelihood")
async def likelihood(service: Service, body: LikelihoodRequest) -> Likelihoods:
    """Score samples, or texts."""
    async with service.pool.use(body.model) as engine:
        require(engine, "likelihood")
        model: Any = engine.model
        if model.spec.text:
            return Likelihoods(model=body.model, likelihoods=[await text_likelihood(service, engine, body)])
        y = given_labels(model, body.labels, len(body.items))
        x = await asyncio.to_thread(from_items, model.spec.x, body.items, service.limits)

        def run(model: Any) -> list[LikelihoodValues]:
            with torch.no_grad():
                found = model.likelihoods(x.to(model.device), on_device(model, y), k=body.k)
                return [
                    LikelihoodValues(name=f.name, kind=f.kind, exact=f.exact, log_likelihood=f.value.cpu().tolist())
                    for f in found
                ]

        return Likelihoods(model=body.model, likelihoods=await engine.call(run))


async def text_likelihood(service: Service, engine: Engine, body: LikelihoodRequest) -> LikelihoodValues:
    """Log-likelihood of each text, without its end; each must fit into the context.

    Raises:
        APIError: an item that is not text, or is too long.
    """
    model: Any = engine.model
    texts = [item.text for item in body.items]
    if any(text is None for text in texts) or not hasattr(getattr(model, "net", None), "prefill"):
        raise invalid("items: this model scores texts only, from left to right. Send text.", "items")
    if sum(len(text or "") for text in texts) > service.limits.prompt:
        raise invalid(f"items: longer than {service.limits.prompt} characters. Shorten them.", "items", "too_long")

    def run(model: Any) -> list[float | None]:
        ids = [list(model.prompt_ids(text)) for text in texts]
        if (longest := max(map(len, ids))) > model.context + 1:
            raise invalid(
                f"items: a text of {longest} tokens, over the context of {model.context}.", "items", "too_long"
            )
        scored = score(model, ids, TextParams())
        return [sum(info.log_prob for info in row if info.log_prob == info.log_prob) for row in scored]

    return LikelihoodValues(name="nll", kind="discrete", exact=True, log_likelihood=await engine.call(run))
