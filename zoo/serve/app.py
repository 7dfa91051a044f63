"""The ASGI application."""

import contextlib
from collections.abc import AsyncIterator, Mapping, MutableMapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zoo.serve import (  # noqa: F401  # each declares its endpoints
    api_caption,
    api_edit,
    api_feedback,
    api_fill,
    api_forecast,
    api_impute,
    api_latents,
    api_likelihood,
    api_listen,
    api_models,
    api_predict_frames,
    api_recommend,
    api_samples,
    api_translate,
    openai_chat,
    openai_other,
    openai_text,
)
from zoo.serve.assets import read_assets, serve_asset
from zoo.serve.dispatch import Operation
from zoo.serve.errors import APIError
from zoo.serve.guard import App, Guard, Receive, Send
from zoo.serve.openapi import document
from zoo.serve.schema import write_json
from zoo.serve.service import ENDPOINTS, Service


class Fast:
    """Routes, before which paths without parameters are looked up: patterns of all routes take longer than an answer.

    Args:
        app: all routes.
        direct: application of a method and a path.
    """

    def __init__(self, app: App, direct: Mapping[tuple[str, str], App]) -> None:
        self.app, self.direct = app, direct

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass a request on."""
        found = self.direct.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (found or self.app)(scope, receive, send)


def build_app(service: Service, hosts: tuple[str, ...] | None = None) -> Guard:
    """Build the application.

    Args:
        service: models, limits and keys.
        hosts: allowed names in the header Host; None allows all.
    """
    assets = read_assets()
    described = write_json(document(service))

    async def health(request: Request) -> Response:
        """State of the server: 200 while it answers, else 503."""
        good = service.pool.healthy and not service.closing
        body = write_json({"status": "ok" if good else "unhealthy", "models": sorted(service.pool.sources)})
        return Response(body, 200 if good else 503, media_type="application/json")

    async def metrics(request: Request) -> Response:
        """Metrics in Prometheus' format."""
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(request: Request) -> Response:
        """The OpenAPI document."""
        return Response(described, media_type="application/json")

    async def missing(request: Request, error: Exception) -> Response:
        """A file of the page, or an error in the format of all others."""
        status = error.status_code if isinstance(error, HTTPException) else 404
        if status == 404 and (found := serve_asset(assets, request)) is not None:
            return found
        headers: dict[str, str] = dict(getattr(error, "headers", None) or {})
        message = {404: "There is no such path.", 405: "The path has other methods."}.get(status, "Not possible.")
        made = APIError(status, message, code={404: "not_found", 405: "method_not_allowed"}.get(status))
        return Response(write_json(made.body), status, headers | made.headers, media_type="application/json")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await service.pool.close()

    pool = service.pool
    service.metrics.registry.register(pool.drift)
    service.metrics.queue.read = lambda: {
        name: (model.engine.n_running, model.engine.n_waiting) for name, model in list(pool.loaded.items())
    }
    routes = [Route("/health", health), Route("/metrics", metrics), Route("/openapi.json", openapi)]
    direct: dict[tuple[str, str], App] = {}
    for each in ENDPOINTS:
        operation = Operation(each, service)
        if "{" not in each.path:
            direct[each.method, each.path] = operation
        routes.append(Route(each.path, operation, methods=[each.method]))
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: missing, 405: missing})
    return Guard(Fast(app, direct), service, hosts, frozenset(assets))
