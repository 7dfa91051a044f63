"""`zoo serve` beside `transformers serve`, on the same weights, in alternating rounds of one run.

    pip install "transformers[serving]"
    python -m tests.serve.rivals --model llama --out record.json

The recipe is built without training, and saved in Hugging Face's format: both serve equal weights, in
float32. Both get the same requests: greedy continuations of one prompt, as streams.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
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
def transformers_server(python: str, folder: Path, port: int, *options: str) -> Iterator[tuple[str, int]]:
    """`transformers serve` in another process."""
    code = "import sys; sys.argv[0] = 'transformers'; from transformers.cli.transformers import main; main()"
    command = [python, "-c", code, "serve", str(folder), "--port", str(port), "--device", "cpu", *options]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | threads)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} has ended: is transformers[serving] installed?")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://localhost:{port}/health", timeout=1).read()
                break
            time.sleep(0.2)
        yield "localhost", port
    finally:
        process.terminate()
        process.wait()


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
        plain = stack.enter_context(transformers_server(python, exported, PORT))
        batching = stack.enter_context(transformers_server(python, exported, PORT + 1, "--continuous-batching"))
        servers = {
            "zoo": (stack.enter_context(server(exported))[0], "benched"),
            "transformers": (plain, str(exported)),
            "transformers_batching": (batching, str(exported)),
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
    parser.add_argument("--python", default=sys.executable, help="of an environment with transformers[serving]")
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
