"""Requests and answers that several operations of `/api` have, and their conversion."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval, Len, MaxLen
from torch import Tensor

from zoo.serve.engine import Engine
from zoo.serve.errors import invalid
from zoo.serve.media import Item, encoded, to_items
from zoo.serve.openai_types import ModelName
from zoo.serve.sampling import labels_of
from zoo.serve.schema import Request

Items = Annotated[list[Item], Len(1, 64)]
Labels = Annotated[list[Annotated[int, Interval(ge=0)]] | None, MaxLen(64)]
LabelField = Annotated[int | None, Interval(ge=0)]
PromptField = Annotated[str | None, MaxLen(1000)]
Count = Annotated[int, Interval(ge=1, le=64)]
Format = Literal["auto", "values"]
Options = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ItemsRequest(Request):
    """A request about given samples.

    Args:
        model: with the ability.
        items: samples in the model's space.
        labels: class of each item, for a conditional model.
        format: see `SampleRequest`.
    """

    model: ModelName
    items: Items
    labels: Labels = None
    format: Format = "auto"


@dataclass(frozen=True, kw_only=True)
class ItemsAnswer:
    """Samples."""

    model: str
    space: str
    samples: list[Item]


def given_labels(model: Any, labels: list[int] | None, n: int) -> Tensor | None:
    """Class labels (n,) of given items.

    Raises:
        APIError: another number of labels, or no such class.
    """
    if labels is None:
        if model.conditional:
            raise invalid("labels: the model is conditional. Give the class of each item.", "labels")
        return None
    if len(labels) != n:
        raise invalid(f"labels: {len(labels)} for {n} items. Give one for each.", "labels")
    for label in labels:
        labels_of(model, 1, label)
    return torch.tensor(labels)


def space_name(engine: Engine) -> str:
    """Registered name of the space that a model generates."""
    return str(engine.model.spec.x.registered_name)


async def items_of(engine: Engine, x: Tensor, form: Format) -> list[Item]:
    """Samples (N, *shape) as items."""
    model: Any = engine.model
    return await encoded(to_items, model.spec.x, x, form == "values", getattr(model, "tokenizer", None))


def on_device(model: Any, y: Tensor | None) -> Tensor | None:
    """Labels on the model's device."""
    return None if y is None else y.to(model.device)
