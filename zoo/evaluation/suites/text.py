"""Metrics of generated text, answers and translations."""

import math
from typing import Any, cast

import torch

from zoo.core.registry import register
from zoo.core.spaces import Pair, Tokens
from zoo.data.base import DataModule
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.likelihood import standard_error
from zoo.metrics.mt_metrics import bleu, chrf, exact_match
from zoo.metrics.pass_at_k import pass_at_k
from zoo.metrics.text_diversity import distinct, repetition, share_that_parses
from zoo.models.abilities import SupportsTextGeneration
from zoo.models.ability import supports
from zoo.models.base import Model

N_TEXTS, LENGTH = 64, 256  # generated texts, and maximum tokens in each
N_PROBLEMS, N_ANSWERS = 128, 16  # of pass@k, whose k are powers of 4
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


@register("suite", "pass_at_k")
class PassAtKSuite(AnswerSuite):
    """Share of problems that one of k sampled answers solves."""

    def measure(self, context: EvaluationContext) -> Scores:
        """pass@k for k = 1, 4 and 16, of answers at temperature 1."""
        return pass_rates(context)


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


def pass_rates(context: EvaluationContext) -> Scores:
    """Estimate pass@k: an answer is right if it is that of the data.

    The name contains k, the number of answers to each problem, and the temperature: `pass4_of16_t1@128_test`.
    """
    model, pairs = cast(Any, context.model), cast(Any, context.data).pairs(context.protocol.split)[:N_PROBLEMS]
    longest = max(len(ids) for ids in context.data.tokenizer.encode_all([answer for _, answer in pairs]))  # type: ignore[attr-defined]
    right = torch.zeros(len(pairs), dtype=torch.long)
    some = N_TEXTS // N_ANSWERS
    for start in range(0, len(pairs), some):
        asked = [pair for pair in pairs[start : start + some] for _ in range(N_ANSWERS)]
        done = model.generate(
            [prompt for prompt, _ in asked], temperature=1, top_p=1, max_new_tokens=longest + 1,
            seed=context.protocol.seed + start,
        )  # fmt: skip
        hits = [exact_match([found.text], [answer]) for found, (_, answer) in zip(done, asked, strict=True)]
        right[start : start + some] = torch.tensor(hits).view(-1, N_ANSWERS).sum(1).long()
    scores: Scores = {}
    for k in (1, 4, N_ANSWERS):
        each = pass_at_k(right, N_ANSWERS, k)
        name = context.name(f"pass{k}_of{N_ANSWERS}_t1", len(pairs))
        scores[name] = Metric(float(each.mean()), "higher", error=standard_error(each))
    return scores


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
