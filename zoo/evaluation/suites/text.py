"""Metrics of generated text, answers and translations."""

import math
from typing import Any, cast

from zoo.core.registry import register
from zoo.core.spaces import Pair, Tokens
from zoo.data.base import DataModule
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.metrics.mt_metrics import bleu, chrf, exact_match
from zoo.metrics.text_diversity import distinct, repetition, share_that_parses
from zoo.models.abilities import SupportsTextGeneration
from zoo.models.ability import supports
from zoo.models.base import Model

N_TEXTS, LENGTH = 64, 256  # generated texts, and maximum tokens in each
BEAMS = 5  # width of the beam search


class _TextSuite(Suite):
    """Metrics of models that generate text."""

    order = 30

    def applies(self, model: Model, data: DataModule) -> bool:
        """Whether the model generates text, and samples have the required structure."""
        return supports(model, SupportsTextGeneration) and self.structure(data) and model.spec.text

    def structure(self, data: DataModule) -> bool:
        """Whether samples have the structure."""
        raise NotImplementedError


@register("suite", "text")
class TextSuite(_TextSuite):
    """Variety and repetition of generated text."""

    draws = True

    def structure(self, data: DataModule) -> bool:
        """Plain text."""
        return isinstance(data.spec.x, Tokens) and not data.prompted

    def measure(self, context: EvaluationContext) -> Scores:
        """Distinct n-grams, repetition, and for source code the share that parses."""
        return text_quality(context)


@register("suite", "answers")
class AnswerSuite(_TextSuite):
    """Answers to held-out prompts."""

    def structure(self, data: DataModule) -> bool:
        """Prompts with answers."""
        return data.prompted

    def measure(self, context: EvaluationContext) -> Scores:
        """The fraction of exact answers."""
        return answer_accuracy(context)


@register("suite", "translation")
class TranslationSuite(_TextSuite):
    """Translations of held-out sources."""

    def structure(self, data: DataModule) -> bool:
        """Sources with targets."""
        return isinstance(data.spec.x, Pair)

    def measure(self, context: EvaluationContext) -> Scores:
        """BLEU, chrF, exact matches."""
        return translation_quality(context)


def text_quality(context: EvaluationContext) -> Scores:
    """Measure diversity and repetition of unconditional texts, and the fraction of Python source that parses."""
    model, data = cast(Any, context.model), context.data
    made = [t.text for t in model.generate([""] * N_TEXTS, max_new_tokens=LENGTH, seed=context.protocol.seed)]
    real = data.sample_texts(context.protocol.split, N_TEXTS, LENGTH)  # type: ignore[attr-defined]
    name = f"{N_TEXTS}x{LENGTH}_{context.protocol.split}"
    scores: Scores = {
        f"distinct2@{name}": Metric(distinct(made, 2), "reference", distinct(real, 2)),
        f"repetition4@{name}": Metric(repetition(made, 4), "reference", repetition(real, 4)),
    }
    if data.python:  # type: ignore[attr-defined]
        scores[f"parses@{name}"] = Metric(share_that_parses(made), "higher", share_that_parses(real))
    return scores


def answer_accuracy(context: EvaluationContext) -> Scores:
    """Measure the fraction of prompts whose greedy completion is the answer."""
    model, data = cast(Any, context.model), cast(Any, context.data)
    pairs = data.pairs(context.protocol.split)
    longest = max(len(ids) for ids in data.tokenizer.encode_all([answer for _, answer in pairs]))
    options = {"temperature": 0, "max_new_tokens": longest + 1, "seed": context.protocol.seed}  # longer is wrong
    made: list[str] = []
    for start in range(0, len(pairs), N_TEXTS):
        made += [done.text for done in model.generate([p for p, _ in pairs[start : start + N_TEXTS]], **options)]
    share = exact_match(made, [answer for _, answer in pairs])
    error = math.sqrt(share * (1 - share) / len(pairs))
    return {context.name("exact_greedy", len(pairs)): Metric(share, "higher", error=error)}


def translation_quality(context: EvaluationContext) -> Scores:
    """Compare translations of all sources with their targets, by greedy and beam search."""
    model, data = cast(Any, context.model), context.data
    pairs = data.pairs(context.protocol.split)  # type: ignore[attr-defined]
    targets, small = [target for _, target in pairs], model.tokenizer.lowercase
    scores: Scores = {}
    searches: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0}, f"beam{BEAMS}": {"beams": BEAMS}}
    for search, options in searches.items():
        outputs: list[str] = []
        for start in range(0, len(pairs), N_TEXTS):
            sources = [source for source, _ in pairs[start : start + N_TEXTS]]
            outputs += [done.text for done in model.generate(sources, seed=context.protocol.seed, **options)]
        for name, metric in (("bleu", bleu), ("chrf", chrf)):
            value, signature = metric(outputs, targets, small)
            scores[context.name(f"{name}_{search}", len(pairs))] = Metric(value, "higher", note=signature)
        scores[context.name(f"exact_{search}", len(pairs))] = Metric(exact_match(outputs, targets, small), "higher")
    return scores
