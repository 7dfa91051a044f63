"""Checks of every request: host, origin, key, type and size of the body. Headers of every answer.

The middleware works on raw ASGI messages, so that a client that goes away is noticed by the handler.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from zoo.serve.errors import APIError, as_api_error
from zoo.serve.metrics import log_request
from zoo.serve.schema import write_json
from zoo.serve.service import Service

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PUBLIC = ("/health",)  # without a key
HEADER = 16 * 1024  # most bytes of the address and all headers
UNREAD = (401, 403, 408, 413, 415, 431)  # answers to bodies that are not read: the connection is closed
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; style-src 'self'; "
        "script-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
}
ENCODED = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
log = logging.getLogger("zoo.serve")


class Guard:
    """Middleware around the routes.

    Args:
        app: the routes.
        service: limits and keys.
        hosts: allowed names in the header Host; None allows all.
        assets: paths of the page, which need no key.
    """

    def __init__(self, app: App, service: Service, hosts: tuple[str, ...] | None, assets: frozenset[str]) -> None:
        self.app, self.service, self.hosts, self.assets = app, service, hosts, assets

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Check a request, pass it on, and log its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        record: dict[str, Any] = {"id": uuid.uuid4().hex[:16], "status": 0}
        scope.setdefault("state", {})["record"] = record

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                record["status"] = message["status"]
                own = (b"x-request-id", record["id"].encode())
                message["headers"] = [*message.get("headers", []), *ENCODED, own]
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, limited(receive, scope, self.service), answer)
        except Exception as error:
            if not isinstance(error, APIError):
                log.exception("a request failed")
            if not record["status"]:
                await send_error(answer, as_api_error(error))
        finally:
            # A client that went away gets no status; 499 is nginx's number for it.
            status = record.pop("status") or 499
            self.service.metrics.responses.labels(str(status)).inc()
            log_request(
                {**record, "client": (scope.get("client") or ("",))[0], "method": scope["method"],
                 "path": scope["path"][:200], "status": status, "seconds": round(time.perf_counter() - begun, 4)}
            )  # fmt: skip

    def _check(self, scope: Mapping[str, Any]) -> None:
        """Check the header.

        Raises:
            APIError: a request that must not be answered.
        """
        size = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        if size + sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER:
            raise APIError(431, f"The header has more than {HEADER:,} bytes. Send less.", code="too_large")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.hosts is not None and host_name(host) not in self.hosts:
            raise APIError(
                400, "Host: an unknown name. Use localhost, or start with --allow-host.", code="unknown_host"
            )
        origin = headers.get("origin")
        foreign = origin is not None and (origin == "null" or urlsplit(origin).netloc != host)
        if foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise APIError(403, "Origin: requests from other sites are refused.", code="cross_origin")
        if self.service.closing:
            raise APIError(503, "The server ends.", kind="server_error", code="closing", retry_after=5)
        self._check_key(scope["path"], headers)
        if scope["method"] in ("POST", "PUT", "PATCH"):
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise APIError(415, "Content-Type: must be application/json. Set the header.", code="content_type")
            length = headers.get("content-length", "")
            if length.isascii() and length.isdecimal() and int(length) > self.service.limits.body:
                raise too_large(self.service.limits.body)

    def _check_key(self, path: str, headers: Mapping[str, str]) -> None:
        if not self.service.keys.needed or path in PUBLIC or path in self.assets:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.service.keys.accept(key.strip()):
            message = "The API key is missing or wrong. Send the header Authorization: Bearer KEY."
            raise APIError(401, message, kind="authentication_error", code="invalid_api_key")


def host_name(host: str) -> str:
    """Name in a header Host, without the port; IPv6 addresses without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def too_large(limit: int) -> APIError:
    """A body over the limit, status 413."""
    return APIError(413, f"The body has more than {limit:,} bytes. Send less.", code="too_large")


def limited(receive: Receive, scope: MutableMapping[str, Any], service: Service) -> Receive:
    """Receive a body within limits of size and time."""
    size, ended = 0, scope["method"] in ("GET", "HEAD")
    deadline = time.monotonic() + service.limits.body_seconds

    async def read() -> Message:
        nonlocal size, ended
        if ended:
            return await receive()
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                message = await receive()
        except TimeoutError:
            raise APIError(408, "The body did not arrive in time. Send it again.", kind="timeout") from None
        size += len(message.get("body", b""))
        if size > service.limits.body:
            raise too_large(service.limits.body)
        ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return read


async def send_error(send: Send, error: APIError) -> None:
    """Send an error as JSON."""
    body = write_json(error.body)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    if error.status in UNREAD:
        headers["connection"] = "close"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
