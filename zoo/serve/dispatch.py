"""From a request to a typed handler and back: JSON, or server-sent events. A client that goes away ends the work."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from zoo.serve.errors import APIError, as_api_error, invalid
from zoo.serve.guard import Receive, Send, send_error
from zoo.serve.schema import parse, read_json, write_json
from zoo.serve.service import Endpoint, Service, Stream, Written

T = TypeVar("T")
log = logging.getLogger("zoo.serve")
SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
DONE = b"data: [DONE]\n\n"


class Operation:
    """ASGI application of one endpoint.

    Args:
        endpoint: with the handler.
        service: for the handler.
    """

    def __init__(self, endpoint: Endpoint, service: Service) -> None:
        self.endpoint, self.service = endpoint, service

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            with contextlib.suppress(Disconnected):
                body = await read_body(receive)  # whole, before another task waits for messages
                result = await until_disconnect(self._handle(scope, body), receive)
                if isinstance(result, Stream):
                    await until_disconnect(send_events(result.events, send), receive)
                else:
                    await send_json(result, send)
        except APIError as error:
            await send_error(send, error)

    async def _handle(self, scope: Any, data: bytes) -> Any:
        arguments: dict[str, Any] = dict(scope.get("path_params", {}))
        if self.endpoint.body is not None:
            body = read_json(data)
            if isinstance(body.get("model"), str):
                scope["state"]["record"]["model"] = body["model"][:200]
            arguments["body"] = parse(self.endpoint.body, body)
        elif data:
            raise invalid("The request must not have a body. Leave it out.")
        try:
            return await self.endpoint.handler(self.service, **arguments)
        except Exception as error:
            found = as_api_error(error)
            if found.status == 500:
                log.exception("%s failed", self.endpoint.path)
            raise found from error


class Disconnected(Exception):
    """The client has gone away."""


async def read_body(receive: Receive) -> bytes:
    """Receive a whole body.

    Raises:
        Disconnected: the client has gone away before its end.
    """
    parts = list[bytes]()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def until_disconnect(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Run a coroutine, and cancel it if the client goes away.

    Raises:
        Disconnected: it did.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(disconnect(receive))
    gone.add_done_callback(lambda _: task.cancel())  # without an effect once the work is done
    try:
        return await task
    except asyncio.CancelledError:
        if gone.done():
            raise Disconnected from None
        raise
    finally:
        gone.cancel()


async def disconnect(receive: Receive) -> None:
    """Wait until the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_json(value: Any, send: Send) -> None:
    """Send an answer."""
    body = value.body if isinstance(value, Written) else write_json(value)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"cache-control", b"no-store"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_events(events: AsyncGenerator[Any, None], send: Send) -> None:
    """Send a stream; an error on the way becomes its last event."""
    try:
        await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
        try:
            async for event in events:
                await send(
                    {"type": "http.response.body", "body": b"data: " + write_json(event) + b"\n\n", "more_body": True}
                )
            end = DONE
        except Exception as error:
            found = as_api_error(error)
            if found.status == 500:
                log.exception("a stream failed")
            end = b"data: " + json.dumps(found.body).encode() + b"\n\n"
        await send({"type": "http.response.body", "body": end})
    finally:
        await events.aclose()
