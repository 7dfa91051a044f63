"""The OpenAPI document: complete, and kept by the server for whatever requests are made from it.

A longer search: `pytest -m slow tests/serve/test_openapi.py`.
"""

import httpx2 as httpx
import hypothesis
import pytest
import schemathesis
from schemathesis import checks

from tests.serve.servers import language_model, masked_model, picture_model, running
from zoo.serve.service import ENDPOINTS

MODELS = {"letters": language_model, "digits": picture_model, "masks": masked_model}
KNOWN = {
    "/v1/completions": "letters",
    "/v1/chat/completions": "letters",
    "/v1/embeddings": "masks",
    "/api/fill": "masks",
}
POSTS = [each for each in ENDPOINTS if each.body is not None]
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def small():
    with running(MODELS, tokens=64) as server:
        httpx.get(f"{server.url}/api/models", timeout=60)  # loads them
        yield server


@pytest.fixture(scope="module")
def api(small):
    return schemathesis.openapi.from_url(f"{small.url}/openapi.json")


def search(api, endpoint, mode, n):
    """Send n requests. Half of them name a model that exists, so that they reach it."""
    statuses = set()

    @hypothesis.given(case=api[endpoint.path][endpoint.method].as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=n,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    def check(case):
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str) and len(case.body["model"]) % 2 == 0:
            case.body["model"] = KNOWN.get(endpoint.path, "digits")
        statuses.add(case.call_and_validate(checks=CHECKS).status_code)

    check()
    return statuses


@pytest.mark.parametrize("mode", schemathesis.GenerationMode)
@pytest.mark.parametrize("endpoint", POSTS, ids=lambda e: e.path)
def test_no_request_makes_the_server_fail(api, endpoint, mode):
    assert search(api, endpoint, mode, 2)


@pytest.mark.slow
@pytest.mark.parametrize("mode", schemathesis.GenerationMode)
@pytest.mark.parametrize("endpoint", POSTS, ids=lambda e: e.path)
def test_no_request_of_many_makes_the_server_fail(api, endpoint, mode):
    statuses = search(api, endpoint, mode, 300)
    assert 400 in statuses
    assert mode is schemathesis.GenerationMode.NEGATIVE or 200 in statuses


def test_the_document_has_every_operation(client):
    document = client.get("/openapi.json").json()
    found = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert found == {(each.method, each.path) for each in ENDPOINTS}
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert operation["responses"]["200"]["content"]
    assert len({o["operationId"] for methods in document["paths"].values() for o in methods.values()}) == len(ENDPOINTS)


def test_fields_have_types_bounds_and_meanings(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    completion = schemas["CompletionRequest"]
    assert completion["required"] == ["model"]
    assert completion["additionalProperties"] is False
    temperature = completion["properties"]["temperature"]
    assert {"type": "number", "minimum": 0, "maximum": 2} in temperature["anyOf"]
    for name, schema in schemas.items():
        if name.endswith("Request"):
            for field, properties in schema["properties"].items():
                assert properties.get("description"), (name, field)
