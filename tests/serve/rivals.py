"""`zoo serve` beside `transformers serve` and LitServe, on the same weights, in alternating rounds of one run.

    pip install "transformers[serving]" litserve
    python -m tests.serve.rivals --model llama --out record.json

The recipe is built without training, and saved in Hugging Face's format: both serve equal weights, in
float32. Both get the same requests: greedy continuations of one prompt, as streams.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

import zoo
from zoo.benchmarks.serving import STREAMS, server, streams
from zoo.interop.huggingface.save import save
from zoo.io.provenance import provenance

PORT = 8765
TOKENS = 64


@contextlib.contextmanager
def rival(python: str, arguments: Iterable[str], port: int) -> Iterator[tuple[str, int]]:
    """A server in another process, until it answers `/health`."""
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "HF_HUB_OFFLINE": "1"}
    command = [python, *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | threads, start_new_session=True
    )
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} has ended: are transformers[serving] and litserve installed?")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://localhost:{port}/health", timeout=1).read()
                break
            time.sleep(0.2)
        yield "localhost", port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # LitServe has a process for each worker
        process.wait()


def transformers_serve(folder: Path, port: int, *options: str) -> list[str]:
    """Arguments of Python for `transformers serve`."""
    code = "import sys; sys.argv[0] = 'transformers'; from transformers.cli.transformers import main; main()"
    return ["-c", code, "serve", str(folder), "--port", str(port), "--device", "cpu", *options]


def litserve(folder: Path, port: int) -> list[str]:
    """Arguments of Python for LitServe."""
    return [str(Path(__file__).with_name("litserve_app.py")), str(folder), str(port)]


def speed(address: tuple[str, int], model: str, n: int) -> float:
    """Tokens per second of n streams."""
    seconds, answers = asyncio.run(streams(address, n, max(n, 4), TOKENS, {"model": model, "temperature": 0}))
    return sum(answer.tokens for answer in answers) / seconds


def compare(recipe: str, python: str, rounds: int) -> list[dict[str, Any]]:
    """Rows: number of streams, and for each server the median of tokens per second, and the ratio to it."""
    with TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        exported = Path(folder) / "benched"
        torch.manual_seed(0)
        save(zoo.create_model(recipe), exported)
        batched = transformers_serve(exported, PORT + 1, "--continuous-batching")
        plain, batching, lit = (
            stack.enter_context(rival(python, arguments, port))
            for port, arguments in enumerate(
                (transformers_serve(exported, PORT), batched, litserve(exported, PORT + 2)), PORT
            )
        )
        servers = {
            "zoo": (stack.enter_context(server(exported))[0], "benched"),
            "transformers": (plain, str(exported)),
            "transformers_batching": (batching, str(exported)),
            "litserve": (lit, "benched"),
        }
        for place, name in servers.values():
            speed(place, name, 1)  # loads the model
        rows = []
        for n in STREAMS:
            found = [{name: speed(*place, n) for name, place in servers.items()} for _ in range(rounds)]
            row: dict[str, Any] = {"streams": n}
            row |= {f"{name}_tokens_per_second": round(median(each[name] for each in found), 1) for name in servers}
            for name in list(servers)[1:]:
                row[f"zoo_times_{name}"] = round(median(each["zoo"] / each[name] for each in found), 2)
            rows.append(row)
        return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="llama", help="a recipe that Hugging Face's format can hold")
    parser.add_argument(
        "--python", default=sys.executable, help="of an environment with transformers[serving] and litserve"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = compare(given.model, given.python, given.rounds)
    about = {"command": f"python -m tests.serve.rivals --model {given.model}", **provenance()}
    text = json.dumps(about | {"tokens_per_request": TOKENS, "results": rows}, indent=1)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
