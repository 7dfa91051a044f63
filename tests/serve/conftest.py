"""A server of tiny models for all tests of a process, and its clients."""

from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="session")
def page_models():
    """Tiny models; they are made once in a process."""
    from tests.serve.page_models import make_page_models

    return make_page_models()


@pytest.fixture(scope="session")
def driver(folder):
    """A browser for all tests of a process."""
    from tests.serve.browser import browsing

    with browsing(folder) as found:
        yield found


@pytest.fixture
def page(server, driver):
    """The page of the module's server; a message in the console fails the test."""
    from tests.serve.browser import Page

    found = Page(driver, server.url)
    found.errors()  # those of an earlier test
    yield found
    assert found.errors() == []
