"""State of a server, and its endpoints: typed functions that the routes and the OpenAPI document are made from."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from zoo.serve.feedback import FeedbackStore
from zoo.serve.keys import Keys
from zoo.serve.limits import Limits
from zoo.serve.metrics import Metrics
from zoo.serve.pool import Pool
from zoo.serve.retriever import Retriever


@dataclass
class Service:
    """State that handlers share.

    Args:
        pool: the models.
        limits: of requests.
        metrics: counters and histograms.
        keys: that requests must have one of; none means that none is needed.
        feedback: file of ratings; None stores none.
        retriever: index of passages for chats, or None.
        closing: the server finishes what runs, and takes nothing new.
    """

    pool: Pool
    limits: Limits
    metrics: Metrics
    keys: Keys = field(default_factory=Keys)
    feedback: FeedbackStore | None = None
    retriever: Retriever | None = None
    closing: bool = False


@dataclass
class Stream:
    """An answer by server-sent events: an object for each, then `[DONE]`."""

    events: AsyncGenerator[Any, None]


@dataclass
class Written:
    """An answer that is JSON already, of the dataclass that the handler's annotation names beside this class."""

    body: bytes


Handler = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Endpoint:
    """One operation.

    Args:
        method: of HTTP.
        path: with parameters in braces.
        handler: an async function of the service, the body and the parameters of the path.
        body: dataclass of the request; None without a body.
        answer: dataclass of the answer.
        chunk: dataclass of an event, if the answer may be a stream.
    """

    method: str
    path: str
    handler: Handler
    body: type | None
    answer: type
    chunk: type | None = None

    @property
    def summary(self) -> str:
        """First line of the handler's docstring."""
        return (self.handler.__doc__ or "").split("\n")[0]


ENDPOINTS: list[Endpoint] = []


def endpoint(method: str, path: str, *, chunk: type | None = None) -> Callable[[Handler], Handler]:
    """Declare a handler; its annotations are the schema."""

    def declare(handler: Handler) -> Handler:
        hints = get_type_hints(handler, include_extras=True)
        answer = next(t for t in (get_args(hints["return"]) or (hints["return"],)) if t not in (Stream, Written))
        ENDPOINTS.append(Endpoint(method, path, handler, hints.get("body"), answer, chunk))
        return handler

    return declare
