"""`/api/feedback`."""

import asyncio
import json
import logging
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import MaxLen

from zoo.serve.errors import APIError, invalid, overloaded
from zoo.serve.feedback import NotStored
from zoo.serve.openai_types import ModelName
from zoo.serve.schema import Request
from zoo.serve.service import Service, endpoint

MAX_REQUEST = 200_000  # characters of JSON
log = logging.getLogger("zoo.serve")


@dataclass(frozen=True, kw_only=True)
class FeedbackRequest(Request):
    """A rating of an answer.

    Args:
        model: that answered.
        rating: 1 is good, -1 is bad.
        note: the reason.
        request: body of the request.
        answer: text of the answer; nothing for other samples.
    """

    model: ModelName
    rating: Literal[1, -1]
    note: Annotated[str, MaxLen(2000)] = ""
    request: dict[str, Any] = field(default_factory=dict)
    answer: Annotated[str, MaxLen(200_000)] = ""


@dataclass(frozen=True, kw_only=True)
class FeedbackStored:
    """The number of the entry."""

    id: int


@endpoint("POST", "/api/feedback")
async def give_feedback(service: Service, body: FeedbackRequest) -> FeedbackStored:
    """Store what a person thinks of an answer."""
    if service.feedback is None:
        raise APIError(404, "feedback: not stored here. Start the server with --feedback FILE.", code="no_feedback")
    source = service.pool.source(body.model)
    if len(json.dumps(body.request)) > MAX_REQUEST:
        raise invalid(f"request: longer than {MAX_REQUEST} characters. Shorten it.", "request", "too_long")
    try:
        number = await asyncio.to_thread(
            service.feedback.add, source.name, body.rating, body.note, body.request, body.answer
        )
    except NotStored as error:
        log.error("%s", error)  # one line: the reason is outside this program
        raise overloaded("feedback: it could not be stored. The server's log has the reason.", retry_after=10) from None
    if not number:
        raise overloaded("feedback: the file is full. Export it, and start with another.")
    return FeedbackStored(id=number)
