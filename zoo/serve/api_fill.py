"""`/api/fill`."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from annotated_types import Len, MaxLen

from zoo.serve.openai_types import ModelName, Seed
from zoo.serve.sampling import checked_options, fresh_seed, require
from zoo.serve.schema import Request
from zoo.serve.service import Service, endpoint


@dataclass(frozen=True, kw_only=True)
class FillRequest(Request):
    """A request to replace masked tokens of texts.

    Args:
        model: one with the ability `fill`.
        texts: with `[MASK]` for each masked token.
        seed: equal seeds give equal texts.
        options: of the method, such as temperature.
    """

    model: ModelName
    texts: Annotated[list[Annotated[str, MaxLen(100_000)]], Len(1, 64)]
    seed: Seed = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts."""

    model: str
    seed: int
    texts: list[str]


@endpoint("POST", "/api/fill")
async def fill(service: Service, body: FillRequest) -> Texts:
    """Replace masked tokens of texts."""
    seed = fresh_seed(body.seed)
    async with service.pool.use(body.model) as engine:
        require(engine, "fill")
        model: Any = engine.model
        options = checked_options(model.fill, body.options)

        def run(model: Any) -> list[str]:
            with torch.no_grad():
                found: list[str] = model.fill(body.texts, seed=seed, **options)
                return found

        return Texts(model=body.model, seed=seed, texts=await engine.call(run))
