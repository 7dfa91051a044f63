"""Models of the zoo in EleutherAI's lm-evaluation-harness (`pip install 'zoo[harness]'`).

    python -m zoo.interop.lm_eval --model zoo --model_args run=RUN --tasks TASK [--include_path FOLDER] ...

is the harness's own command line, to which the model "zoo" is known; everything after the module's name is documented
there. From Python:

    from zoo.interop.lm_eval import Harness
    lm_eval.simple_evaluate(Harness(run="RUN"), tasks=["TASK"])
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.errors import CheckpointError
from zoo.interop.loading import load
from zoo.models.autoregressive.base import LanguageModelBase

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError as error:
    raise CheckpointError("zoo.interop.lm_eval needs the lm-evaluation-harness: pip install 'zoo[harness]'.") from error

LONGEST = 2048  # tokens read at once by a model whose context has no end
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # the harness knows all of them


@register_model("zoo")
class ZooLM(LM):
    """A language model of the zoo as the harness wants it.

    Every text begins after the end-of-text token. Where a text and its continuation are longer than the context, the
    model sees as much of what came before as fits: `context` tokens, the continuation's own included. No token of
    a continuation is left out, however long it is.

    Args:
        run: what `zoo.load` takes: a run folder, a checkpoint, an exported file; or a model.
        batch_size: texts at once.
        device: where the model runs; None is the CPU, and so is CUDA where there is none, as the harness's command line
            asks for cuda:0 by default.
        max_gen_toks: most tokens to write, where a task does not say.
        seed: of texts that are drawn (`do_sample`).
        max_batch_size: taken for the harness's sake, which hands it over; has no effect.

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
                f"the harness asks how likely texts go on, which {model.registered_name} on {model.spec} cannot tell: "
                f"take a language model that was trained on text, such as gpt, lstm or ngram."
            )
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise CheckpointError(f"batch_size={batch_size} must be a whole number of at least 1.")
        self._device = torch.device(device)
        self.model, self.batch_size, self.max_gen_toks, self.seed = (
            model.to(device).eval(),
            int(batch_size),
            max_gen_toks,
            seed,
        )
        self.window = int(min(model.net.context, LONGEST))

    # -- likelihoods -----------------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Nats of each continuation after its text, and whether greedy decoding would write it."""
        return self.score(self.pair(*request.args) for request in requests)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Nats of whole texts, each token once, after as many of the tokens before it as fit its window."""
        encoded = (([self.model.tokenizer.begin], self.model.tokenizer.encode(request.args[0])) for request in requests)
        return [nats for nats, _ in self.score(encoded)]

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens before, and those of the continuation.

        As in the harness, spaces at the end of the context go over to the continuation. Both are encoded as one
        text; where a token would span the border, they are encoded apart, so that the probability is that of the
        continuation after this context, no byte more or less.
        """
        kept = context.rstrip()
        continuation, context = context[len(kept) :] + continuation, kept
        encode = self.model.tokenizer.encode
        before, whole = encode(context), encode(context + continuation)
        after = whole[len(before) :] if whole[: len(before)] == before else encode(continuation)
        return [self.model.tokenizer.begin, *before], after

    def windows(self, before: list[int], after: list[int]) -> Iterator[tuple[list[int], int]]:
        """Stretches of at most a context and one token, whose last ones are to be scored, and how many of them: every
        token of `after` once.
        """
        tokens, done = before + after, len(before)
        while done < len(tokens):
            end = min(done + self.window, len(tokens))
            yield tokens[max(end - self.window - 1, 0) : end], end - done
            done = end

    @torch.no_grad()
    def score(self, pairs: Iterable[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Nats of what comes after, and whether each of its tokens is the likeliest, for (before, after) pairs."""
        pieces: list[tuple[int, list[int], int]] = []  # (number of the pair, a stretch, how many are scored)
        totals: list[tuple[float, bool]] = []
        for number, (before, after) in enumerate(pairs):
            totals.append((0.0, True))
            pieces += [(number, row, scored) for row, scored in self.windows(before, after)]
        pieces.sort(key=lambda piece: len(piece[1]), reverse=True)  # alike in length: little padding
        for begin in range(0, len(pieces), self.batch_size):
            batch = pieces[begin : begin + self.batch_size]
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
        """Rows of unequal length (B, T), zeros after their end, which no token before them sees; and what is real."""
        width = max(map(len, rows))
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self._device)
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        return tokens, torch.arange(width, device=self._device) < lengths[:, None]

    # -- writing ---------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Texts that go on until one of the stop sequences, which is left out.

        Without `do_sample` or a temperature the writing is greedy. Other settings that a task may give are those of
        `TextModel.generate`; what that does not know is refused.
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
        """What a task asks for, in the words of `TextModel.generate`."""
        asked = dict(asked)
        until = asked.pop("until", None) or []
        limits = [int(limit) for name in LENGTHS if (limit := asked.pop(name, None)) is not None]
        sample = asked.pop("do_sample", None)
        warm = float(asked.pop("temperature", None) or 0.0)
        if sample is False or (sample is None and not warm):
            asked.pop("top_p", None)  # of no meaning where nothing is drawn
            asked.pop("top_k", None)
            warm = 0.0
        elif not warm:
            warm = 1.0
        return {
            **asked,
            "stop": [stop for stop in ([until] if isinstance(until, str) else until) if stop],
            "max_new_tokens": limits[0] if limits else self.max_gen_toks,
            "temperature": warm,
            "seed": self.seed,
        }


def main() -> None:
    """The harness's command line."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
