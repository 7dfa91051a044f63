"""The OpenAPI document, from the typed handlers."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from zoo.serve.schema import schema_of
from zoo.serve.service import ENDPOINTS, Endpoint, Service

ERRORS = {
    400: "The request does not fit.",
    401: "The API key is missing or wrong.",
    403: "The request comes from another site.",
    404: "There is no such model or path.",
    405: "The path has other methods.",
    408: "The request took too long.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    429: "Too many requests wait.",
    431: "The header is too large.",
    500: "The server failed.",
    503: "The server is at a limit, or ends.",
}
ERROR = {
    "type": "object",
    "description": "An error in the format of OpenAI's interface.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def document(service: Service) -> dict[str, Any]:
    """The document for all endpoints."""
    components: dict[str, Any] = {"Error": ERROR}
    paths: dict[str, Any] = {}
    for each in ENDPOINTS:
        paths.setdefault(each.path, {})[each.method.lower()] = operation(each, components)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "zoo",
            "version": package_version(),
            "description": "Generative models: OpenAI's interface under /v1, and everything else under /api.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }
    if service.keys.needed:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    return found


def package_version() -> str:
    """Version of the installed package."""
    try:
        return version("generative-zoo")
    except PackageNotFoundError:
        return "0"


def operation(each: Endpoint, components: dict[str, Any]) -> dict[str, Any]:
    """One operation of a path."""
    content: dict[str, Any] = {"application/json": {"schema": schema_of(each.answer, components)}}
    if each.chunk is not None:
        schema_of(each.chunk, components)
        note = f"Events whose data are {each.chunk.__name__} objects, then [DONE]."
        content["text/event-stream"] = {"schema": {"type": "string", "description": note}}
    answer = {"description": (each.answer.__doc__ or "").split("\n")[0], "content": content}
    errors = {
        str(status): {
            "description": text,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, text in ERRORS.items()
    }
    found: dict[str, Any] = {
        "operationId": each.handler.__name__,
        "summary": each.summary,
        "tags": [each.path.split("/")[1]],
        "responses": {"200": answer, **errors},
    }
    if "{model}" in each.path:
        name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        found["parameters"] = [name]
    if each.body is not None:
        body = {"application/json": {"schema": schema_of(each.body, components)}}
        found["requestBody"] = {"required": True, "content": body}
    return found
