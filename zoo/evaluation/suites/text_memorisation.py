"""Memorisation of the training text, and held-out text that is also in it."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Tokens
from zoo.data.base import DataModule
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.text import LENGTH, N_TEXTS
from zoo.metrics.text_overlap import longest_copies, shared_ngrams
from zoo.models.abilities import SupportsTextGeneration, SupportsTokenSampling
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.nn.samplers.sampling_params import SamplingParams

MAX_CHARACTERS = 50_000_000  # of the training text that are read
COPY = 50  # characters of a long copy, and most tokens of a prompt and of its continuation
GRAMS = 5, 13  # words; 13 as for GPT-3


class _TrainedTextSuite(Suite):
    """Suites that read the training text."""

    order = 35

    def applies(self, model: Model, data: DataModule) -> bool:
        """Data with plain text in one stream of tokens."""
        return isinstance(data.spec.x, Tokens) and hasattr(data, "iterate_texts") and model.spec.text


@register("suite", "text_memorisation")
class TextMemorisationSuite(_TrainedTextSuite):
    """Copies of the training text in generated texts, and continuations of it that are known by heart."""

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that generate text, and were trained on running text."""
        able = supports(model, SupportsTextGeneration) and supports(model, SupportsTokenSampling)
        return super().applies(model, data) and able and not data.prompted

    def measure(self, context: EvaluationContext) -> Scores:
        """Longest copies of generated texts beside those of held-out texts, and the share of extracted passages."""
        return copies(context) | extraction(context)


@register("suite", "contamination")
class ContaminationSuite(_TrainedTextSuite):
    """Held-out text that is also in the training text: a property of the data."""

    def measure(self, context: EvaluationContext) -> Scores:
        """Shares of the split's word n-grams that the training text has."""
        data, scores = cast(Any, context.data), Scores()
        for n in GRAMS:
            held, train = (limited(data.iterate_texts(split)) for split in (context.protocol.split, "train"))
            scores[context.name(f"in_training_{n}grams")] = Metric(shared_ngrams(held, train, n), "lower")
        return scores


def copies(context: EvaluationContext) -> Scores:
    """Longest substrings of generated texts that the training text has: mean characters, and share of long ones."""
    model, data = cast(Any, context.model), cast(Any, context.data)
    made = [t.text for t in model.generate([""] * N_TEXTS, max_new_tokens=LENGTH, seed=context.protocol.seed)]
    real = data.sample_texts(context.protocol.split, N_TEXTS, LENGTH)
    found = longest_copies([*made, *real], limited(data.iterate_texts("train")))
    ours, theirs = found[: len(made)], found[len(made) :]
    name = f"{N_TEXTS}x{LENGTH}_{context.protocol.split}"
    long = [sum(n >= COPY for n in some) / len(some) for some in (ours, theirs)]
    return {
        f"longest_copy@{name}": Metric(
            sum(ours) / len(ours), "reference", sum(theirs) / len(theirs), note="characters"
        ),
        f"copies{COPY}@{name}": Metric(long[0], "reference", long[1]),
    }


def extraction(context: EvaluationContext) -> Scores:
    """Share of training passages that greedy decoding continues exactly, beside that of held-out ones.

    A passage is a prompt and its continuation, of 50 tokens each, or half of the context (Carlini et al. 2023,
    2202.07646, section 3.1). They are evenly spaced over the text.
    """
    model: Any = context.model
    length = min(COPY, model.context // 2)
    trained, held = (exact_continuations(model, split[1], length) for split in (context.data.train, context.held))
    return {f"extracted@{N_TEXTS}x{length}+{length}_train": Metric(trained, "reference", held)}


def exact_continuations(model: Any, stream: Tensor, length: int) -> float:
    """Share of passages of a stream of tokens (N,) whose greedy continuation is exact."""
    starts = torch.linspace(0, max(len(stream) - 2 * length, 0), N_TEXTS, dtype=torch.float64).long().unique()
    rows = torch.stack([stream[s : s + 2 * length] for s in starts.tolist()]).long()  # (N, 2 length)
    prompts = rows[:, :length].tolist()
    made = model.sample_tokens(prompts, rows.shape[1] - length, SamplingParams(temperature=0), None).cpu()
    return float((made == rows[:, length:]).all(1).double().mean())


def limited(texts: Iterable[str]) -> Iterator[str]:
    """Texts up to `MAX_CHARACTERS` together."""
    room = MAX_CHARACTERS
    for text in texts:
        if room <= 0:
            return
        yield text[:room]
        room -= len(text)
