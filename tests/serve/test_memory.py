"""Connections that are closed do not stay in memory until a timer ends."""

import gc
import time

import httpx2 as httpx
import pytest

from tests.serve.servers import running
from zoo.serve.server import Protocol

N = 20


def connections() -> int:
    """Connections in memory."""
    gc.collect()
    return sum(isinstance(each, Protocol) for each in gc.get_objects())


@pytest.mark.parametrize("cancelled", [True, False])
def test_no_connection_outlives_its_socket(cancelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timers that run on keep every one: the negative control."""
    before = connections()
    if not cancelled:
        monkeypatch.setattr(Protocol, "_forget", lambda self: None)
    with running({}) as server:
        for closing in ("close", "keep-alive"):  # by the server, and by the client
            for _ in range(N):
                httpx.get(f"{server.url}/health", headers={"Connection": closing}, timeout=60)
        until = time.monotonic() + 5
        while cancelled and connections() > before and time.monotonic() < until:
            time.sleep(0.05)
        left = connections() - before
    assert left == 0 if cancelled else left == 2 * N
