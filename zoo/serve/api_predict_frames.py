"""`/api/predict_frames`: videos that begin with given frames."""

import asyncio
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor

from zoo.core.spaces import Video
from zoo.data.loader import make_generator
from zoo.serve.api_edit import EditRequest
from zoo.serve.api_samples import Samples
from zoo.serve.api_types import items_of, space_name
from zoo.serve.errors import invalid
from zoo.serve.media import from_items
from zoo.serve.sampling import check_size, checked_options, condition_of, fresh_seed, require
from zoo.serve.service import Service, endpoint


@dataclass(frozen=True, kw_only=True)
class PredictFramesRequest(EditRequest):
    """A request to continue a video.

    Args:
        model: one with the ability `predict_frames`.
        item: a video; its first frames are given.
        frames: number of given frames, fewer than the model's videos have.
        n: number of results.
    """

    frames: Annotated[int, Interval(ge=1, le=1000)] = 1


@endpoint("POST", "/api/predict_frames")
async def predict_frames(service: Service, body: PredictFramesRequest) -> Samples:
    """Draw the frames that follow the first ones of a video."""
    seed = fresh_seed(body.seed)
    async with service.pool.use(body.model) as engine:
        require(engine, "predict_frames")
        model: Any = engine.model
        space = model.spec.x
        if not isinstance(space, Video) or body.frames >= space.frames:
            raise invalid(f"frames={body.frames}: the model draws {space}. Give fewer frames.", "frames")
        check_size(service, body.n, body.n * space.size)
        options = checked_options(model.predict_frames, body.options)
        condition = condition_of(model, body.n, body.label, body.prompt)
        given = replace(space, frames=body.frames)
        x = await asyncio.to_thread(from_items, given, [body.item], service.limits, "item")
        rows = x.expand(body.n, *given.shape).to(model.device)

        def run(model: Any) -> Tensor:
            with torch.no_grad():
                generator = make_generator(seed)
                found: Tensor = model.predict_frames(rows, condition=condition, generator=generator, **options)
                return found.cpu()

        samples = await items_of(engine, await engine.call(run), body.format)
        return Samples(model=body.model, space=space_name(engine), seed=seed, samples=samples)
