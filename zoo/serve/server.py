"""Run a server with uvicorn."""

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from zoo.core.errors import ConfigError
from zoo.serve.app import build_app
from zoo.serve.feedback import FeedbackStore
from zoo.serve.guard import HEADER, LOOPBACK
from zoo.serve.keys import Keys, read_keys
from zoo.serve.limits import Limits
from zoo.serve.metrics import Metrics
from zoo.serve.pool import Pool, Source, find_sources
from zoo.serve.retriever import Retriever
from zoo.serve.service import Service

GRACE = 30  # seconds in which running requests may finish after the signal to end


class Protocol(H11Protocol):
    """HTTP/1.1 whose connections are closed where no request arrives in time, not even in parts."""

    seconds: float = 30.0
    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Expect the first request."""
        super().connection_made(transport)
        self._expect()

    def on_response_complete(self) -> None:
        """Expect the next one."""
        super().on_response_complete()
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more: a timer would keep the connection and its last request in memory until it ends."""
        self._forget()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._forget()
        if not self.transport.is_closing():
            self.timer = self.loop.call_later(self.seconds, self._close_without, self.cycle)

    def _forget(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def _close_without(self, before: Any) -> None:
        """Close, if there was no other request since."""
        if self.cycle is before and not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """A server that refuses new requests after the signal to end, and finishes those that run.

    Args:
        service: models, limits and keys.
        host: address to listen on.
        port: 0 takes a free one.
        allow_hosts: further names that clients may use.
    """

    def __init__(self, service: Service, host: str, port: int, allow_hosts: Sequence[str] = ()) -> None:
        self.service = service
        names = (*LOOPBACK, *(name.lower() for name in allow_hosts))
        hosts = names if is_loopback(host) or allow_hosts else None  # elsewhere the key protects
        protocol = type("LimitedProtocol", (Protocol,), {"seconds": service.limits.body_seconds})
        config = uvicorn.Config(
            build_app(service, hosts), host, port, log_config=None, access_log=False, server_header=False,
            date_header=True, proxy_headers=False, timeout_graceful_shutdown=GRACE, timeout_keep_alive=30,
            h11_max_incomplete_event_size=HEADER, http=protocol, ws="none", lifespan="on",
        )  # fmt: skip
        super().__init__(config)

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Finish what runs."""
        self.service.closing = True
        await super().shutdown(sockets)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.servers[0].sockets[0].getsockname()[1])


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets on all addresses of a host; port 0 takes a free one.

    Raises:
        ConfigError: an unknown host, an address of another machine, or a port that is in use.
    """
    found, missing = list[socket.socket](), list[OSError]()
    try:
        known = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, place in dict.fromkeys((each[0], each[4][:2]) for each in known):
            try:
                found.append(socket.create_server(place, family=family, backlog=2048))
                # Connections inherit it; asyncio sets it only where a socket names its protocol. Without it, an answer
                # in two parts takes 40 ms longer.
                found[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing.append(error)  # such as IPv6, of a name with both kinds of address
        if not found:
            raise missing[0]
    except OSError as error:
        for each in found:
            each.close()
        raise ConfigError(
            f"--port={port}: the server cannot listen on {host} ({error.strerror}). Choose another; --port 0 takes a "
            "free one."
        ) from None
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def default_threads() -> int:
    """Threads of torch, at most one less than the processors.

    A model whose threads are on all processors is slowed down by the work of the connections; see `speed.md`.
    """
    return max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) - 1))


def check_exposure(host: str, keys: Keys) -> None:
    """Check that a server that others reach has keys.

    Raises:
        ConfigError: it does not.
    """
    if not is_loopback(host) and not keys.needed:
        raise ConfigError(f"--host={host}: other machines could use the models. Give --key-file FILE.")


def make_service(
    sources: Sequence[Source],
    limits: Limits,
    keys: Keys | None = None,
    feedback: Path | None = None,
    index: Path | None = None,
) -> Service:
    """A service over sources."""
    store = None if feedback is None else FeedbackStore(feedback)
    retriever = None if index is None else Retriever(index)
    return Service(Pool(sources, limits), limits, Metrics(), Keys() if keys is None else keys, store, retriever)


def serve(
    models: Sequence[str],
    *,
    folder: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    key_file: Path | None = None,
    allow_hosts: Sequence[str] = (),
    device: str = "cpu",
    limits: Limits | None = None,
    feedback: Path | None = None,
    index: Path | None = None,
    threads: int | None = None,
    quantize: bool = False,
) -> None:
    """Serve models until a signal to end.

    `threads` are those of each model's arithmetic; None leaves one processor to the connections. `quantize` converts
    language models to 8-bit weights.

    Raises:
        ZooError: nothing to serve, not an index of texts, no 8-bit weights, a public address without keys, or a port in
            use.
    """
    keys = Keys() if key_file is None else read_keys(key_file)
    check_exposure(host, keys)
    limits = Limits() if limits is None else limits
    torch.set_num_threads(default_threads() if threads is None else threads)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    service = make_service(find_sources(models, folder, device, quantize), limits, keys, feedback, index)
    sockets = listen(host, port)
    server = Server(service, host, port, allow_hosts)

    async def run() -> None:
        task = asyncio.create_task(server.serve(sockets))
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if server.started:
            names = ", ".join(service.pool.sources)
            print(f"zoo: http://{url_host(host)}:{server.port} serves {names}", flush=True)
        await task

    asyncio.run(run())


def url_host(host: str) -> str:
    """A host in a URL."""
    return f"[{host}]" if ":" in host else host
