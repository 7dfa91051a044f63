"""Measure 8-bit and 4-bit weights: `python -m tests.benchmarks.int8`; perplexity of a model, and tokens per second.

All are timed in turn, and a ratio is that of medians. `--batches N` scores N batches of test data and times nothing.
"""

import argparse
import math
import statistics
import time
from itertools import islice
from typing import Any

import torch

import zoo
from zoo.core.spaces import Tokens
from zoo.data.batch import Batch

ROUNDS, TOKENS = 5, 24


def nats(model: Any, data: Any, batches: int | None) -> float:
    """Nats per token of the test split, or of its first batches."""
    total = n = 0.0
    with torch.no_grad():
        for batch in islice(data.test_dataloader(), batches):
            cost, target = model.token_nll(Batch.of(batch))
            total, n = total + float(cost.double().sum()), n + int((target >= 0).sum())
    return total / n


def seconds(model: Any, rows: int) -> float:
    """Time of generating `TOKENS` tokens in each row."""
    begun = time.perf_counter()
    model.sample_tokens([[model.begin]] * rows, TOKENS, model.sampling({}), torch.Generator().manual_seed(0))
    return time.perf_counter() - begun


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int)
    batches = parser.parse_args().batches
    data = zoo.create_data("shakespeare", context=64)
    plain: Any = zoo.load("gpt-shakespeare").eval()
    data.use_tokenizer_from(plain.spec)
    data.setup()
    before = nats(plain, data, batches)
    for bits in (8, 4):
        after = nats(zoo.load("gpt-shakespeare").eval().quantize(bits), data, batches)  # type: ignore[attr-defined]
        factor = math.exp(after - before)
        print(
            f"gpt-shakespeare, {bits} bits: {before:.4f} -> {after:.4f} nats per character, perplexity x {factor:.5f}"
        )
    if batches is not None:
        return
    for d_model, n_layers in ((256, 4), (768, 6)):
        spec = zoo.DataSpec(Tokens(64, 4096), name="tokens")
        sizes = {"d_model": d_model, "n_layers": n_layers, "n_heads": d_model // 64, "tie_weights": False}
        models: list[Any] = []
        for bits in (0, 8, 4):
            torch.manual_seed(0)
            model: Any = zoo.create_model("llama", data=spec, backbone=sizes).eval()
            models.append(model.quantize(bits) if bits else model)
        millions = sum(p.numel() for p in models[0].parameters()) / 1e6
        for rows in (1, 16):
            times: list[list[float]] = [[], [], []]
            for _ in range(ROUNDS):
                for kept, model in zip(times, models, strict=True):
                    kept.append(seconds(model, rows))
            fast = [TOKENS * rows / statistics.median(kept) for kept in times]
            ratios = ", ".join(f"{bits} bits {fast[i] / fast[0]:.2f}" for i, bits in ((1, 8), (2, 4)))
            speeds = " / ".join(f"{speed:.1f}" for speed in fast)
            print(f"{millions:6.1f} M, batch {rows:2}: {speeds} tokens/s in 32 / 8 / 4 bits, ratios {ratios}")


if __name__ == "__main__":
    main()
