"""`/api/edit`, `/api/inpaint`, `/api/colorize` and `/api/super_resolve`: changes of given samples."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor

from zoo.core.space import Space
from zoo.core.spaces import Image
from zoo.data.loader import make_generator
from zoo.serve.api_samples import Samples
from zoo.serve.api_types import Count, Format, LabelField, PromptField, items_of, space_name
from zoo.serve.errors import invalid
from zoo.serve.limits import Limits
from zoo.serve.media import Item, from_items, numbers, picture
from zoo.serve.openai_types import ModelName, Seed
from zoo.serve.sampling import check_size, checked_options, condition_of, fresh_seed, require
from zoo.serve.schema import Request
from zoo.serve.service import Service, endpoint


@dataclass(frozen=True, kw_only=True)
class EditRequest(Request):
    """A request for variations of a sample.

    Args:
        model: one with the ability `edit`.
        item: the sample.
        n: number of variations.
        label: class of the result, for a conditional model.
        prompt: description of the result, for a model that is conditioned on texts.
        seed: see `SampleRequest`.
        options: of the method, such as strength.
        format: see `SampleRequest`.
    """

    model: ModelName
    item: Item
    n: Count = 1
    label: LabelField = None
    prompt: PromptField = None
    seed: Seed = None
    options: dict[str, Any] = field(default_factory=dict)
    format: Format = "auto"


@dataclass(frozen=True, kw_only=True)
class InpaintRequest(EditRequest):
    """A request to replace a part of a sample.

    Args:
        model: one with the ability `inpaint`.
        mask: what to replace: a picture that is white there, or values that are 1 there and 0 elsewhere.
    """

    mask: Item


@dataclass(frozen=True, kw_only=True)
class SuperResolveRequest(EditRequest):
    """A request to add resolution to a picture.

    Args:
        model: one with the ability `super_resolve`.
        item: a picture; it is read with the model's size divided by the factor.
        factor: of height and width.
    """

    factor: Annotated[int, Interval(ge=2, le=64)] = 2


@endpoint("POST", "/api/edit")
async def edit(service: Service, body: EditRequest) -> Samples:
    """Make variations of a sample."""
    return await changed(service, body, "edit")


@endpoint("POST", "/api/colorize")
async def colorize(service: Service, body: EditRequest) -> Samples:
    """Add colour to a picture."""
    return await changed(service, body, "colorize")


@endpoint("POST", "/api/super_resolve")
async def super_resolve(service: Service, body: SuperResolveRequest) -> Samples:
    """Add resolution to a picture."""
    return await changed(service, body, "super_resolve")


@endpoint("POST", "/api/inpaint")
async def inpaint(service: Service, body: InpaintRequest) -> Samples:
    """Replace a part of a sample so that it fits to the rest."""
    return await changed(service, body, "inpaint")


async def changed(service: Service, body: EditRequest, ability: str) -> Samples:
    """Call a method that changes given samples."""
    seed = fresh_seed(body.seed)
    async with service.pool.use(body.model) as engine:
        require(engine, ability)
        model: Any = engine.model
        check_size(service, body.n, body.n * model.spec.size)
        options = checked_options(getattr(model, ability), body.options)
        space = given_space(model.spec.x, body, ability)
        x = await asyncio.to_thread(from_items, space, [body.item], service.limits, "item")
        x = x.expand(body.n, *space.shape)
        condition = condition_of(model, body.n, body.label, body.prompt)
        given = [x.to(model.device)]
        if isinstance(body, InpaintRequest):
            mask = await asyncio.to_thread(mask_of, model.spec.x, body.mask, service.limits)
            given.append(mask[None].to(model.device))

        def run(model: Any) -> Tensor:
            with torch.no_grad():
                method = getattr(model, ability)
                found: Tensor = method(*given, condition=condition, generator=make_generator(seed), **options)
                return found.cpu()

        samples = await items_of(engine, await engine.call(run), body.format)
        return Samples(model=body.model, space=space_name(engine), seed=seed, samples=samples)


def given_space(space: Space, body: EditRequest, ability: str) -> Space:
    """The space of the sample that a method changes.

    Raises:
        APIError: a factor that does not divide the size of the model's pictures.
    """
    if isinstance(body, SuperResolveRequest) and isinstance(space, Image):
        if space.height % body.factor or space.width % body.factor:
            raise invalid(
                f"factor={body.factor}: does not divide {space.height}x{space.width}. Choose another.", "factor"
            )
        return replace(space, height=space.height // body.factor, width=space.width // body.factor)
    return replace(space, channels=1) if ability == "colorize" and isinstance(space, Image) else space


def mask_of(space: Space, item: Item, limits: Limits) -> Tensor:
    """A mask (*shape), or one channel of it, True where values are replaced.

    Raises:
        APIError: another shape.
    """
    if item.image is not None and isinstance(space, Image):
        return picture(item.image, replace(space, channels=1, levels=256), limits, "mask") > 0.5
    if item.values is None:
        raise invalid("mask: must be an image or values. Correct it.", "mask")
    one_channel = isinstance(space, Image) and len(item.values) == 1
    shape = (1, *space.shape[1:]) if one_channel else space.shape
    return numbers(item.values, space, "mask", shape) > 0.5
