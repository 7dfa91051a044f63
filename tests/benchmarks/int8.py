"""Measure 8-bit weights: `python -m tests.benchmarks.int8`; perplexity of a trained model, and tokens per second.

Both are timed in turn, and the ratio is that of their medians.
"""

import math
import statistics
import time
from typing import Any

import torch

import zoo
from zoo.core.spaces import Tokens
from zoo.data.batch import Batch

ROUNDS, TOKENS = 5, 24


def nats(model: Any, data: Any) -> float:
    """Nats per token of the test split."""
    total = n = 0.0
    with torch.no_grad():
        for batch in data.test_dataloader():
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
    data = zoo.create_data("shakespeare", context=64)
    plain: Any = zoo.load("gpt-shakespeare").eval()
    data.use_tokenizer_from(plain.spec)
    data.setup()
    before = nats(plain, data)
    after = nats(plain.quantize(), data)
    factor = math.exp(after - before)
    print(f"gpt-shakespeare: {before:.4f} -> {after:.4f} nats per character, perplexity x {factor:.5f}")
    for d_model, n_layers in ((256, 4), (768, 6)):
        spec = zoo.DataSpec(Tokens(64, 4096), name="tokens")
        sizes = {"d_model": d_model, "n_layers": n_layers, "n_heads": d_model // 64, "tie_weights": False}
        models: list[Any] = []
        for _ in range(2):
            torch.manual_seed(0)
            models.append(zoo.create_model("llama", data=spec, backbone=sizes).eval())
        models[1].quantize()
        millions = sum(p.numel() for p in models[0].parameters()) / 1e6
        for rows in (1, 16):
            times: list[list[float]] = [[], []]
            for _ in range(ROUNDS):
                for kept, model in zip(times, models, strict=True):
                    kept.append(seconds(model, rows))
            fast = [TOKENS * rows / statistics.median(kept) for kept in times]
            ratio = fast[1] / fast[0]
            print(f"{millions:6.1f} M, batch {rows:2}: {fast[0]:7.1f} -> {fast[1]:7.1f} tokens/s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
