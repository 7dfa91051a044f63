"""Metrics of generated text, answers and translations."""

import math
from typing import Any, cast

from zoo.core.registry import register
from zoo.core.spaces import Pair, Tokens
from zoo.data.base import DataModule
from zoo.data.text.instructions import PromptResponseData
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.metrics.mt_metrics import bleu, chrf, exact_match
from zoo.metrics.text_diversity import distinct, repetition, share_that_parses
from zoo.models.abilities import SupportsTextGeneration, supports
from zoo.models.base import Model

TEXTS, LENGTH = 64, 256  # texts written, and tokens in each at most
BEAMS = 5  # width of the search for targets


class _TextSuite(Suite):
    """Models that write text."""

    order = 30

    def applies(self, model: Model, data: DataModule) -> bool:
        """Whether the model writes, and samples have the structure that the metrics need."""
        return supports(model, SupportsTextGeneration) and self.structure(data) and model.spec.text

    def structure(self, data: DataModule) -> bool:
        """Whether the data have that structure."""
        raise NotImplementedError


@register("suite", "text")
class TextSuite(_TextSuite):
    """Variety and repetition of generated text."""

    def structure(self, data: DataModule) -> bool:
        """Plain text."""
        return isinstance(data.spec.x, Tokens) and not isinstance(data, PromptResponseData)

    def measure(self, context: EvaluationContext) -> Scores:
        """Distinct n-grams, repetition, and for source code the share that parses."""
        return text_quality(context)


@register("suite", "answers")
class AnswerSuite(_TextSuite):
    """Answers to held-out prompts."""

    def structure(self, data: DataModule) -> bool:
        """Prompts with answers."""
        return isinstance(data, PromptResponseData)

    def measure(self, context: EvaluationContext) -> Scores:
        """The share of exact answers."""
        return answer_accuracy(context)


@register("suite", "translation")
class TranslationSuite(_TextSuite):
    """Targets written for held-out sources."""

    def structure(self, data: DataModule) -> bool:
        """Sources with targets."""
        return isinstance(data.spec.x, Pair)

    def measure(self, context: EvaluationContext) -> Scores:
        """BLEU, chrF, exact matches."""
        return translation_quality(context)


def text_quality(bench: EvaluationContext) -> Scores:
    """Texts begun from nothing: how varied, how repetitive, and of Python's source, how many parse."""
    model, data = cast(Any, bench.model), bench.data
    made = [t.text for t in model.generate([""] * TEXTS, max_new_tokens=LENGTH, seed=bench.protocol.seed)]
    real = data.sample_texts(bench.protocol.split, TEXTS, LENGTH)  # type: ignore[attr-defined]
    name = f"{TEXTS}x{LENGTH}_{bench.protocol.split}"
    scores: Scores = {
        f"distinct2@{name}": Metric(distinct(made, 2), "floor", distinct(real, 2)),
        f"repetition4@{name}": Metric(repetition(made, 4), "floor", repetition(real, 4)),
    }
    if data.python:  # type: ignore[attr-defined]
        scores[f"parses@{name}"] = Metric(share_that_parses(made), "higher", share_that_parses(real))
    return scores


def answer_accuracy(bench: EvaluationContext) -> Scores:
    """How many prompts of the split are answered as the data do, the likeliest token taken each time."""
    model, data = cast(Any, bench.model), cast(Any, bench.data)
    pairs = data.pairs(bench.protocol.split)
    longest = max(len(ids) for ids in data.tokenizer.encode_all([answer for _, answer in pairs]))
    options = {"temperature": 0, "max_new_tokens": longest + 1, "seed": bench.protocol.seed}  # more would be wrong
    made: list[str] = []
    for start in range(0, len(pairs), TEXTS):
        made += [done.text for done in model.generate([p for p, _ in pairs[start : start + TEXTS]], **options)]
    share = exact_match(made, [answer for _, answer in pairs])
    error = math.sqrt(share * (1 - share) / len(pairs))
    return {bench.name("exact_greedy", len(pairs)): Metric(share, "higher", error=error)}


def translation_quality(bench: EvaluationContext) -> Scores:
    """What is written after every source of the split, against its target; how it is searched for is in the name."""
    model, data = cast(Any, bench.model), bench.data
    pairs = data.pairs(bench.protocol.split)  # type: ignore[attr-defined]
    targets, small = [target for _, target in pairs], model.tokenizer.lowercase
    scores: Scores = {}
    searches: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0}, f"beam{BEAMS}": {"beams": BEAMS}}
    for search, options in searches.items():
        outputs: list[str] = []
        for start in range(0, len(pairs), TEXTS):
            sources = [source for source, _ in pairs[start : start + TEXTS]]
            outputs += [done.text for done in model.generate(sources, seed=bench.protocol.seed, **options)]
        for name, metric in (("bleu", bleu), ("chrf", chrf)):
            value, signature = metric(outputs, targets, small)
            scores[bench.name(f"{name}_{search}", len(pairs))] = Metric(value, "higher", note=signature)
        scores[bench.name(f"exact_{search}", len(pairs))] = Metric(exact_match(outputs, targets, small), "higher")
    return scores
