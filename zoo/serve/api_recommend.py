"""`/api/recommend`."""

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Interval, Len

from zoo.serve.openai_types import ModelName
from zoo.serve.sampling import require
from zoo.serve.schema import Request
from zoo.serve.service import Service, endpoint


@dataclass(frozen=True, kw_only=True)
class RecommendRequest(Request):
    """A request for items that a user may like.

    Args:
        model: one with the ability `recommend`.
        items: names of the items that the user has chosen.
        k: number of items to recommend.
    """

    model: ModelName
    items: Annotated[list[Annotated[str, Len(1, 1000)]], Len(1, 1000)]
    k: Annotated[int, Interval(ge=1, le=1000)] = 10


@dataclass(frozen=True, kw_only=True)
class Recommended:
    """An item and its score; a higher one is better."""

    item: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Recommendations:
    """Items that the user has not chosen, best first."""

    model: str
    items: list[Recommended]


@endpoint("POST", "/api/recommend")
async def recommend(service: Service, body: RecommendRequest) -> Recommendations:
    """Recommend items to a user of given items."""
    async with service.pool.use(body.model) as engine:
        require(engine, "recommend")

        def run(model: Any) -> list[tuple[str, float]]:
            found: list[tuple[str, float]] = model.recommend(body.items, body.k)
            return found

        found = await engine.call(run)
    return Recommendations(model=body.model, items=[Recommended(item=name, score=score) for name, score in found])
