"""Compare decoding with `transformers.generate`: `python -m tests.benchmarks.decoding`; tokens per second, in one run.

An untrained Llama is exported in the format of Hugging Face, and loaded by both. All ways of decoding generate the same
number of greedy tokens after the same prompts, and take turns. Times are CPU seconds of this process, which has one
thread, so that other processes disturb them less. Texts in 32 bits are checked to be equal.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import zoo
from zoo.core.spaces import Tokens
from zoo.interop.huggingface.save import save
from zoo.io.provenance import hardware

SIZES = {"2M": (128, 4), "5M": (256, 4), "49M": (768, 6)}  # width and layers
VOCABULARY, CONTEXT, PROMPT, SPREAD = 4096, 256, 8, 0.05  # SPREAD: deviation of the weights

Way = Callable[[Tensor], Tensor]  # prompts (B, PROMPT) -> new tokens (B, n)


def ours(model: Any, tokens: int) -> Way:
    """Decoding of the zoo."""

    def write(prompts: Tensor) -> Tensor:
        greedy = model.sampling({"temperature": 0})
        return model.sample_tokens(prompts.tolist(), tokens, greedy, torch.Generator().manual_seed(0))

    return write


def theirs(model: Any, tokens: int, static: bool) -> Way:
    """Decoding of transformers, with its growing or its static cache."""
    options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    if static:
        options |= {"cache_implementation": "static", "disable_compile": True}

    def write(prompts: Tensor) -> Tensor:
        with torch.no_grad():
            return model.generate(prompts, attention_mask=torch.ones_like(prompts), **options)[:, PROMPT:]

    return write


def ways(width: int, layers: int, tokens: int) -> dict[str, Way]:
    """All ways of decoding with one set of weights."""
    from transformers import AutoModelForCausalLM

    with TemporaryDirectory() as folder:
        torch.manual_seed(0)
        sizes = {"d_model": width, "n_layers": layers, "n_heads": width // 64, "tie_weights": False}
        spec = zoo.DataSpec(Tokens(CONTEXT, VOCABULARY), name="tokens")
        first: Any = zoo.create_model("llama", data=spec, backbone=sizes).eval()
        for weight in first.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=SPREAD)
        save(first, Path(folder) / "model")
        rival = AutoModelForCausalLM.from_pretrained(Path(folder) / "model", dtype=torch.float32).eval()
        rival.generation_config.eos_token_id = None  # all texts have the same length
        found = {
            "transformers": theirs(rival, tokens, False),
            "transformers, static cache": theirs(rival, tokens, True),
        }
        for bits in (32, 8, 4):
            model: Any = zoo.load(Path(folder) / "model").eval()
            found[f"zoo, {bits} bits"] = ours(model if bits == 32 else model.quantize(bits), tokens)
        return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{hardware()}, 1 thread, {given.tokens} tokens after {PROMPT}, medians of {given.rounds} turns in CPU time")
    print("| model | batch | decoding | tokens/s | of transformers | of its static cache |")
    print("|---|---|---|---|---|---|")
    for size in given.sizes:
        found = ways(*SIZES[size], given.tokens)
        for batch in given.batches:
            prompts = torch.randint(1, VOCABULARY - 1, (batch, PROMPT), generator=torch.Generator().manual_seed(1))
            texts = {name: way(prompts) for name, way in found.items()}
            for name in ("transformers, static cache", "zoo, 32 bits"):
                if not torch.equal(texts[name], texts["transformers"]):
                    raise SystemExit(f"decoding: greedy texts of {name} differ from those of transformers.")
            times: dict[str, list[float]] = {name: [] for name in found}
            for _ in range(given.rounds):
                for name, way in found.items():
                    begun = time.process_time()
                    way(prompts)
                    times[name].append(time.process_time() - begun)
            growing, static = times["transformers"], times["transformers, static cache"]
            for name, mine in times.items():
                speed = batch * given.tokens / statistics.median(mine)
                ratios = [
                    f"{statistics.median(slow / quick for slow, quick in zip(rival, mine, strict=True)):.2f}"
                    for rival in (growing, static)
                ]
                print(f"| {size} | {batch} | {name} | {speed:.0f} | {ratios[0]} | {ratios[1]} |", flush=True)


if __name__ == "__main__":
    main()
