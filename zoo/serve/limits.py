"""Limits of the server: sizes of requests, queues and times."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds that no request can exceed.

    Args:
        body: bytes of a request.
        body_seconds: until a body has arrived.
        prompt: characters of all prompts of a request.
        prompts: number of prompts, texts or samples that a request may bring.
        rows: texts that are generated together, and the most choices of one request.
        tokens: generated tokens of one choice.
        samples: pictures or other samples of one request, if their numbers are no more than the next limit.
        numbers: scalar values in the answer of one request.
        pixels: of an uploaded picture.
        queue: requests that wait for a model.
        seconds: until a request must be finished.
        memory: bytes of weights that are loaded at a time.
    """

    body: int = 12 * 2**20
    body_seconds: float = 30.0
    prompt: int = 200_000
    prompts: int = 64
    rows: int = 32
    tokens: int = 4096
    samples: int = 512
    numbers: int = 2**22
    pixels: int = 4_000_000
    queue: int = 64
    seconds: float = 120.0
    memory: int = 4 * 2**30
