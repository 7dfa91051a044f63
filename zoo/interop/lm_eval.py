"""Evaluate language models with EleutherAI's lm-evaluation-harness (`pip install lm-eval`).

    python -m zoo.interop.lm_eval --model zoo --model_args run=RUN --tasks TASK [--include_path FOLDER] ...

is the harness's command line with the model "zoo". From Python:

    from zoo.interop.lm_eval import ZooLM
    lm_eval.simple_evaluate(ZooLM(run="RUN"), tasks=["TASK"])
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.errors import CheckpointError
from zoo.interop.loading import load
from zoo.models.autoregressive.language_model_base import LanguageModelBase

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError:
    raise CheckpointError("zoo.interop.lm_eval needs the lm-evaluation-harness: pip install lm-eval.") from None

MAX_WINDOW = 2048  # tokens, for a model with unlimited context
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # names that the harness uses


@register_model("zoo")
class ZooLM(LM):
    """Adapter of a language model to the harness.

    Every text begins as prompts of `generate` do. If text and continuation exceed the context, the start of the text is
    truncated. All tokens of a continuation are scored.

    Args:
        run: a run folder, a checkpoint, an exported file, or a model.
        batch_size: texts per batch.
        device: device of the model; the CPU for None, or if CUDA is missing (the harness's default is cuda:0).
        max_gen_toks: maximum new tokens, unless the task sets them.
        seed: of sampled texts (`do_sample`).
        max_batch_size: argument of the harness, without effect.

    Raises:
        CheckpointError: no such run, or a model that does not continue text.
    """

    def __init__(
        self,
        run: str | Path | LanguageModelBase,
        batch_size: int | str = 32,
        device: str | None = None,
        max_gen_toks: int = 256,
        seed: int = 0,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
            device = "cpu"
        model = load(run, device) if isinstance(run, (str, Path)) else run
        if not isinstance(model, LanguageModelBase) or model.tokenizer is None or not hasattr(model.net, "prefill"):
            raise CheckpointError(
                f"run={run}: a {model.registered_name} on {model.spec} does not continue text. "
                f"Use a language model that was trained on text."
            )
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise CheckpointError(f"batch_size={batch_size}: not an integer of at least 1. Give a number of texts.")
        self._device = torch.device(device)
        self.model, self.batch_size = model.to(device).eval(), int(batch_size)
        self.max_gen_toks, self.seed = max_gen_toks, seed
        self.window = int(min(model.net.context, MAX_WINDOW))

    # -- likelihoods -----------------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation in nats, and whether it is the greedy one."""
        return self.score(self.encode_pair(*request.args) for request in requests)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-likelihood of whole texts in nats, each token scored once, in windows of the context."""
        encoded = (([self.model.tokenizer.begin], self.model.tokenizer.encode(request.args[0])) for request in requests)
        return [nats for nats, _ in self.score(encoded)]

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Encode context and continuation.

        As in the harness, trailing spaces of the context belong to the continuation. Both are encoded as one text, or
        separately if a token would span the border.
        """
        kept = context.rstrip()
        continuation, context = context[len(kept) :] + continuation, kept
        tokenizer = self.model.tokenizer
        before, whole = tokenizer.encode(context), tokenizer.encode(context + continuation)
        joint = whole[: len(before)] == before
        after = whole[len(before) :] if joint else tokenizer.encode_continuation(continuation)
        return tokenizer.encode_prompt(context), after

    def split(self, before: list[int], after: list[int]) -> Iterator[tuple[list[int], int]]:
        """Split into windows of at most the context and one token, each with the number of last tokens to score."""
        tokens, done = before + after, len(before)
        while done < len(tokens):
            end = min(done + self.window, len(tokens))
            yield tokens[max(end - self.window - 1, 0) : end], end - done
            done = end

    @torch.no_grad()
    def score(self, pairs: Iterable[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Score (before, after) pairs: nats of `after`, and whether each of its tokens is the most likely."""
        windows: list[tuple[int, list[int], int]] = []  # (index of the pair, window, number of scored tokens)
        totals: list[tuple[float, bool]] = []
        for number, (before, after) in enumerate(pairs):
            totals.append((0.0, True))
            windows += [(number, row, scored) for row, scored in self.split(before, after)]
        windows.sort(key=lambda piece: len(piece[1]), reverse=True)  # similar lengths: little padding
        for begin in range(0, len(windows), self.batch_size):
            batch = windows[begin : begin + self.batch_size]
            rows, real = self.padded([row for _, row, _ in batch])
            lengths = real.sum(1)
            x, y = rows[:, :-1], rows[:, 1:]
            place = torch.arange(y.shape[1], device=y.device)
            first = lengths - 1 - torch.tensor([scored for _, _, scored in batch], device=y.device)
            asked = (place >= first[:, None]) & real[:, 1:]
            logits = self.model.net(x)
            nats = F.cross_entropy(logits.transpose(1, 2), y, reduction="none").double()
            sums = (-nats * asked).sum(1).tolist()
            alike = ((logits.argmax(-1) == y) | ~asked).all(1).tolist()
            for (number, _, _), log_p, greedy in zip(batch, sums, alike, strict=True):
                total, so_far = totals[number]
                totals[number] = (total + log_p, so_far and greedy)
        return totals

    def padded(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Pad rows with zeros on the right: tokens (B, T), and a mask of real ones."""
        width = max(map(len, rows))
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self._device)
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        return tokens, torch.arange(width, device=self._device) < lengths[:, None]

    # -- generation ------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Generate text up to a stop sequence, which is removed.

        Without `do_sample` or a temperature, decoding is greedy. Other options are those of `generate`.
        """
        written = [""] * len(requests)
        alike: dict[str, tuple[dict[str, Any], list[int]]] = {}
        for number, request in enumerate(requests):
            options = self.options(request.args[1])
            alike.setdefault(repr(sorted(options.items())), (options, []))[1].append(number)
        for options, numbers in alike.values():
            numbers.sort(key=lambda number: len(requests[number].args[0]))
            for begin in range(0, len(numbers), self.batch_size):
                batch = numbers[begin : begin + self.batch_size]
                done = self.model.generate([requests[number].args[0] for number in batch], **options)
                for number, completion in zip(batch, done, strict=True):
                    written[number] = completion.text
        return written

    def options(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Convert the options of a task to those of `generate`."""
        asked = dict(asked)
        until = asked.pop("until", None) or []
        limits = [int(limit) for name in LENGTHS if (limit := asked.pop(name, None)) is not None]
        sample = asked.pop("do_sample", None)
        temperature = float(asked.pop("temperature", None) or 0.0)
        if sample is False or (sample is None and not temperature):
            asked.pop("top_p", None)  # without effect
            asked.pop("top_k", None)
            temperature = 0.0
        elif not temperature:
            temperature = 1.0
        return {
            **asked,
            "stop": [stop for stop in ([until] if isinstance(until, str) else until) if stop],
            "max_new_tokens": limits[0] if limits else self.max_gen_toks,
            "temperature": temperature,
            "seed": self.seed,
        }


def main() -> None:
    """Run the harness's command line."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
