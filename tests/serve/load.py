"""Many requests, clients that vanish, and malformed requests, against `zoo serve` in another process.

    python -m tests.serve.load --requests 10000 --out record.json

Counts the answers by status, and measures the memory of the server after each tenth of the requests. A leak would grow
in each of them; allocators grow in the first ones only.
"""

import argparse
import asyncio
import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zoo.benchmarks.serving import server
from zoo.io.provenance import provenance

AT_ONCE = 32
PARTS = 10  # after each of which the memory is read
MALFORMED = (b"", b"{", b"[]", b'{"model": NaN}', b"\xff\xfe{}", b'{"model": "benched", "prompt": 3}', b"[" * 10_000)


@dataclass
class Load:
    """Numbers of requests, by kind.

    Args:
        n: requests in all.
        vanish: of them, those whose client closes the connection in the middle of the answer.
        malformed: of them, those with a body that is not a request.
    """

    n: int = 10_000
    vanish: int = 200
    malformed: int = 200

    def kinds(self) -> list[str]:
        """The kind of each request, in random order."""
        rest = self.n - self.vanish - self.malformed
        kinds = ["vanish"] * self.vanish + ["malformed"] * self.malformed
        kinds += ["stream", "whole", "models"] * (rest // 3) + ["whole"] * (rest % 3)
        random.Random(0).shuffle(kinds)
        return kinds


def body_of(kind: str, seed: int) -> bytes:
    """The body of a request."""
    if kind == "malformed":
        return MALFORMED[seed % len(MALFORMED)]
    tokens = 60 if kind == "vanish" else 8
    asked = {"model": "benched", "prompt": "x" * (seed % 40), "max_tokens": tokens, "seed": seed}
    return json.dumps(asked | {"stream": kind in ("stream", "vanish")}).encode()


async def send(address: tuple[str, int], kind: str, seed: int) -> str:
    """Send one request; returns its status, or what its client did."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        if kind == "models":
            writer.write(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        else:
            body = body_of(kind, seed)
            lines = ["POST /v1/completions HTTP/1.1", "Host: localhost", "Connection: close"]
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
            writer.write("\r\n".join(lines).encode() + body)
        status = (await reader.readline()).split(b" ")[1].decode()
        if kind == "vanish":
            await reader.readuntil(b"data: ")
            writer.transport.abort()
            return "vanished"
        await reader.read()
        return status
    finally:
        writer.close()


async def send_all(address: tuple[str, int], kinds: list[str], first: int = 0) -> Counter[str]:
    """Send requests, `AT_ONCE` at a time: how often each status came."""
    found, seeds = Counter[str](), iter(enumerate(kinds, first))

    async def client() -> None:
        for seed, kind in seeds:
            found[await send(address, kind, seed)] += 1

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return found


def memory(pid: int) -> float:
    """Megabytes of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


async def idle(address: tuple[str, int], seconds: float = 10) -> bool:
    """Whether no request runs any more, after some seconds at the most."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        found = re.findall(rb"^zoo_requests_(?:running|waiting)\{[^}]*\} (\S+)", await reader.read(), re.M)
        writer.close()
        if found and not any(float(n) for n in found):
            return True
        await asyncio.sleep(0.1)
    return False


def measure(run: Path, load: Load) -> dict[str, Any]:
    """Send a load to a server of a run of a language model, and report."""
    with server(run) as (address, process):
        kinds, begun, found, sizes = load.kinds(), time.perf_counter(), Counter[str](), list[float]()
        for part in range(PARTS):
            first, last = part * load.n // PARTS, (part + 1) * load.n // PARTS
            found += asyncio.run(send_all(address, kinds[first:last], first))
            sizes.append(memory(process.pid))
        seconds = time.perf_counter() - begun
        ended = asyncio.run(idle(address))
        sizes[-1] = memory(process.pid)
    return {
        "requests": load.n,
        "at_once": AT_ONCE,
        "answers": dict(sorted(found.items())),
        "errors_5xx": sum(n for status, n in found.items() if status.startswith("5")),
        "seconds": round(seconds, 1),
        "all_ended": ended,
        "mb_after_a_tenth": round(sizes[0], 1),
        "mb_after_half": round(sizes[PARTS // 2 - 1], 1),
        "mb_at_the_end": round(sizes[-1], 1),
        "mb_of_each_tenth": [round(size) for size in sizes],
    }


def main() -> None:
    """Command line."""
    from tests.benchmarks.test_serving import saved
    from tests.serve.servers import language_model

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=Load.n)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    load = Load(given.requests, given.requests // 50, given.requests // 50)
    with TemporaryDirectory() as folder:
        found = measure(saved(language_model(), Path(folder)), load)
    text = json.dumps({"command": f"python -m tests.serve.load --requests {load.n}", **provenance(), **found}, indent=1)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
