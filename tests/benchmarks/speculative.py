"""Measure speculative decoding: `python -m tests.benchmarks.speculative MODEL DRAFT`, both trained on Shakespeare.

Plain and drafted generation of the same prompts, from the test split, take turns. Times are CPU seconds of this
process, which has one thread, so that other processes disturb them less. Greedy texts are checked to be equal.
"""

import argparse
import statistics
import time
from typing import Any

import torch

import zoo

PROMPT, ROUNDS = 8, 5  # characters before the generated ones, and turns of each kind


def seconds(model: Any, prompts: list[str], tokens: int, **options: Any) -> tuple[float, list[str]]:
    """CPU time of continuing each prompt alone, and the texts."""
    begun = time.process_time()
    texts = [model.generate(prompt, max_new_tokens=tokens, seed=0, **options)[0].text for prompt in prompts]
    return time.process_time() - begun, texts


def passes(model: Any, prompts: list[str], tokens: int, **options: Any) -> int:
    """Passes of the network that generate the same texts, with those that read the prompts."""
    calls: list[int] = []
    hook = model.net.register_forward_hook(lambda *_: calls.append(1))
    seconds(model, prompts, tokens, **options)
    hook.remove()
    return len(calls)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Compare speculative with plain decoding.")
    parser.add_argument("model")
    parser.add_argument("draft")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--n-draft", type=int, nargs="+", default=[2, 4, 6])
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, draft = (zoo.load(name).eval() for name in (given.model, given.draft))
    data: Any = zoo.create_data("shakespeare", context=model.spec.size)
    data.use_tokenizer_from(model.spec)
    data.setup()
    rows = next(iter(data.test_dataloader())).x
    prompts = [model.tokenizer.decode(row[:PROMPT].tolist()) for row in rows[: given.prompts]]
    tokens = model.spec.size - PROMPT
    sizes = [sum(p.numel() for p in each.parameters()) / 1e6 for each in (model, draft)]
    print(f"model {sizes[0]:.2f} M, draft {sizes[1]:.2f} M parameters; {len(prompts)} texts of {tokens} tokens")
    print("| temperature | drafted | tokens a pass | plain tokens/s | drafted tokens/s | ratio | least to most |")
    print("|---|---|---|---|---|---|---|")
    for temperature in (0.0, 1.0):
        for n in given.n_draft:
            plain, fast = {"temperature": temperature}, {"temperature": temperature, "draft": draft, "n_draft": n}
            number = passes(model, prompts, tokens, **fast) - len(prompts)
            times: list[tuple[float, float]] = []
            for _ in range(ROUNDS):
                (slow, before), (quick, after) = (seconds(model, prompts, tokens, **how) for how in (plain, fast))
                if not temperature and before != after:
                    raise SystemExit("speculative: greedy texts differ from those without a draft.")
                times.append((slow, quick))
            ratios = sorted(slow / quick for slow, quick in times)
            made = len(prompts) * tokens
            speeds = " | ".join(f"{made / statistics.median(column):.0f}" for column in zip(*times, strict=True))
            print(
                f"| {temperature:g} | {n} | {made / number:.2f} | {speeds} | {statistics.median(ratios):.2f} | "
                f"{ratios[0]:.2f} to {ratios[-1]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
