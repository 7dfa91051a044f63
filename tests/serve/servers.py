"""Servers on a free port of this machine, in a thread, with tiny models that nobody trained."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2 as httpx
import torch

import zoo
from zoo.core import registry
from zoo.core.spaces import Image, Label, Tokens, Vector
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.byte import Byte
from zoo.serve.keys import Keys
from zoo.serve.limits import Limits
from zoo.serve.pool import Source
from zoo.serve.server import Server, make_service

CONTEXT = 64
SMALL = {"d_model": 16, "n_layers": 2, "n_heads": 2}


def text_spec() -> zoo.DataSpec:
    tokenizer = Byte()
    return zoo.DataSpec(Tokens(CONTEXT, tokenizer.vocab_size, dumps(tokenizer)), name="letters")


def language_model(seed: int = 0, std: float = 0.4, **settings):
    """Random weights everywhere: at initialisation the branches are zero."""
    torch.manual_seed(seed)
    model = zoo.create_model(
        "language_model", data=text_spec(), **{"backbone": {"name": "transformer", **SMALL}, **settings}
    )
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(std=std)
    return model.eval()


def picture_model(name: str = "vae", **settings):
    torch.manual_seed(0)
    spec = zoo.DataSpec(Image(1, 8, 8, levels=17), Label(10), name="digits")
    return zoo.create_model(name, data=spec, **settings).eval()


def masked_model():
    torch.manual_seed(0)
    return zoo.create_model("bert", data=text_spec(), backbone=SMALL).eval()


MODELS: dict[str, Callable] = {
    "letters": language_model,
    "digits": picture_model,
    "classes": lambda: picture_model(conditional=True),
    "masks": masked_model,
    "points": lambda: zoo.create_model("vae", data=zoo.DataSpec(Vector(3), name="points")).eval(),
}


class Running:
    """A server in a thread."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
        self.thread.start()
        while not server.started:
            assert self.thread.is_alive()
            time.sleep(0.005)
        self.url = f"http://127.0.0.1:{server.port}"

    def engine(self, name: str):
        return self.server.service.pool.loaded[name].engine

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


@contextmanager
def running(
    models=None, keys: Keys | None = None, allow_hosts=(), feedback=None, index=None, **limits
) -> Iterator[Running]:
    """Serve models, by default all of MODELS."""
    registry.discover()  # after a change of the package it takes a while
    given = (MODELS if models is None else models).items()
    sources = [load if isinstance(load, Source) else Source(name, load) for name, load in given]
    server = Running(
        Server(make_service(sources, Limits(**limits), keys, feedback, index), "127.0.0.1", 0, allow_hosts)
    )
    try:
        yield server
    finally:
        server.stop()


def get(url: str, **options):
    return httpx.get(url, timeout=60, **options)


def post(url: str, **options):
    return httpx.post(url, timeout=60, **options)


OK = {"model": "letters", "max_tokens": 1}


def is_error(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error
