"""A server of tiny models for all tests of a process, and its clients."""

from collections.abc import Iterator

import httpx2 as httpx
import openai
import pytest

from tests.serve.servers import Running, running


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as found:
        yield found


@pytest.fixture(scope="session")
def openai_client(server: Running):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
