"""`/api/sample`, `/api/denoising` and `/api/interpolate`."""

import asyncio
import inspect
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from annotated_types import Interval, Len
from torch import Tensor

from zoo.data.loader import make_generator
from zoo.serve.api_types import Count, Format, LabelField, PromptField, items_of, space_name
from zoo.serve.engine import Engine
from zoo.serve.errors import invalid
from zoo.serve.media import Item, from_items
from zoo.serve.openai_types import ModelName, Seed
from zoo.serve.sampling import check_size, checked_options, condition_of, draw, fresh_seed, require
from zoo.serve.schema import Request
from zoo.serve.service import Service, endpoint


@dataclass(frozen=True, kw_only=True)
class SampleRequest(Request):
    """A request for samples.

    Args:
        model: one with the ability `sample`.
        n: number of samples.
        label: class of a conditional model; None draws classes at random.
        prompt: description of the samples, of a model that is conditioned on texts.
        seed: equal seeds give equal samples, also those of `zoo sample`.
        options: of the model's sampler, such as steps and guidance.
        format: values are numbers of any space; auto is PNG for pictures, GIF for videos, WAV for sound,
            text for tokens.
    """

    model: ModelName
    n: Count = 1
    label: LabelField = None
    prompt: PromptField = None
    seed: Seed = None
    options: dict[str, Any] = field(default_factory=dict)
    format: Format = "auto"


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples; `seed` gives the same ones again."""

    model: str
    space: str
    seed: int
    samples: list[Item]


@endpoint("POST", "/api/sample")
async def sample(service: Service, body: SampleRequest) -> Samples:
    """Draw samples."""
    seed = fresh_seed(body.seed)
    async with service.pool.use(body.model) as engine:
        x = await draw(
            service, engine, n=body.n, label=body.label, prompt=body.prompt, seed=seed, options=body.options,
            finish=lambda drawn: drawn,
        )  # fmt: skip
        items = await items_of(engine, x, body.format)
        return Samples(model=body.model, space=space_name(engine), seed=seed, samples=items)


@dataclass(frozen=True, kw_only=True)
class DenoisingRequest(Request):
    """A request for the estimates of samples while they are drawn.

    Args:
        model: one with the ability `denoising`.
        n: number of samples.
        frames: estimates of each, from the first to the last step.
        label: see `SampleRequest`.
        prompt: see `SampleRequest`.
        seed: see `SampleRequest`; the last estimates are its samples.
        options: of the model's sampler.
        format: see `SampleRequest`.
    """

    model: ModelName
    n: Count = 1
    frames: Annotated[int, Interval(ge=2, le=64)] = 8
    label: LabelField = None
    prompt: PromptField = None
    seed: Seed = None
    options: dict[str, Any] = field(default_factory=dict)
    format: Format = "auto"


@dataclass(frozen=True, kw_only=True)
class InterpolateRequest(Request):
    """A request for walks between samples.

    Args:
        model: one with the ability `interpolate`.
        n: number of walks.
        steps: samples of each walk.
        between: two samples that a single walk begins and ends with, if the model encodes data.
        label: class, for a conditional model that takes one here.
        prompt: description, for a model that takes one here.
        seed: see `SampleRequest`.
        options: of the method.
        format: see `SampleRequest`.
    """

    model: ModelName
    n: Count = 1
    steps: Annotated[int, Interval(ge=2, le=64)] = 8
    between: Annotated[list[Item], Len(2, 2)] | None = None
    label: LabelField = None
    prompt: PromptField = None
    seed: Seed = None
    options: dict[str, Any] = field(default_factory=dict)
    format: Format = "auto"


@dataclass(frozen=True, kw_only=True)
class Walks:
    """Walks, each a list of samples."""

    model: str
    space: str
    seed: int
    walks: list[list[Item]]


@endpoint("POST", "/api/denoising")
async def denoising(service: Service, body: DenoisingRequest) -> Walks:
    """Show how samples come about."""
    async with service.pool.use(body.model) as engine:
        require(engine, "denoising")
        given = checked_options(engine.model.denoising, body.options)
        condition = condition_of(engine.model, body.n, body.label, body.prompt)
        return await walks_of(service, engine, body, "denoising", body.frames, given | {"condition": condition})


@endpoint("POST", "/api/interpolate")
async def interpolate(service: Service, body: InterpolateRequest) -> Walks:
    """Walk between samples."""
    async with service.pool.use(body.model) as engine:
        require(engine, "interpolate")
        given = checked_options(engine.model.interpolate, body.options)
        given |= await asyncio.to_thread(ends_of, service, engine.model, body)
        return await walks_of(service, engine, body, "interpolate", body.steps, given)


async def walks_of(
    service: Service,
    engine: Engine,
    body: DenoisingRequest | InterpolateRequest,
    method: str,
    length: int,
    given: dict[str, Any],
) -> Walks:
    """Call a method of the model that returns n walks of a length, (n, length, *shape).

    Raises:
        APIError: more than the limits allow.
    """
    seed = fresh_seed(body.seed)
    check_size(service, body.n * length, body.n * length * engine.model.spec.size)

    def run(model: Any) -> Tensor:
        with torch.no_grad():
            found: Tensor = getattr(model, method)(body.n, length, generator=make_generator(seed), **given)
            return found.cpu()

    walks = [await items_of(engine, walk, body.format) for walk in await engine.call(run)]
    return Walks(model=body.model, space=space_name(engine), seed=seed, walks=walks)


def ends_of(service: Service, model: Any, body: InterpolateRequest) -> dict[str, Tensor]:
    """Arguments of a model that walks between given samples, or of a given class or text.

    Raises:
        APIError: a model that does not.
    """
    known, found = inspect.signature(model.interpolate).parameters, dict[str, Tensor]()
    for name, keyword in (("between", "between"), ("label", "condition"), ("prompt", "condition")):
        if getattr(body, name) is not None and keyword not in known:
            raise invalid(f"{name}: this model does not take it. Leave it out.", name, "unsupported")
    if body.between is not None:
        if body.n != 1:
            raise invalid(f"n={body.n}: one walk between two given samples. Set n=1.", "n")
        found["between"] = from_items(model.spec.x, body.between, service.limits, "between").to(model.device)
    condition = condition_of(model, body.n, body.label, body.prompt)
    return found if condition is None else found | {"condition": condition}
