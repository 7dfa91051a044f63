"""Likelihood metrics: nats, bits per dimension, bits per byte."""

import math
from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Preference, Tokens
from zoo.data.base import DataModule
from zoo.data.text.instructions import PromptResponseData
from zoo.evaluation.context import BATCH, EvaluationContext, Metric, Scores, count
from zoo.evaluation.suites.base import Suite
from zoo.models.abilities import SupportsLikelihood, SupportsTokenAccuracy, supports
from zoo.models.base import Model


@register("suite", "likelihood")
class LikelihoodSuite(Suite):
    """Nats of the whole split: exact, or a lower bound and the tighter one of k samples.

    Log-probabilities of levels are given in bits per dimension too. A log-density depends on the scale of the data;
    its metric is named so.
    """

    order = 10

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models with a likelihood of anything but text."""
        return supports(model, SupportsLikelihood) and not model.spec.text

    def measure(self, context: EvaluationContext) -> Scores:
        """Every likelihood that the model offers."""
        scores = self.of(context, 1, BATCH)
        if any(metric.startswith("nelbo") for metric in scores):
            scores |= self.of(context, context.protocol.k, BATCH // 4)
        return scores

    def of(self, context: EvaluationContext, k: int, size: int) -> Scores:
        """The likelihoods from k samples, in batches of a size."""
        model: Any = context.model
        found: dict[tuple[str, str], list[Tensor]] = {}
        for x, y in context.batches(size):
            for one in model.likelihoods(x, y if model.conditional else None, k=k):
                name = one.name if k == 1 or one.exact else f"{one.name}{count(k)}"
                found.setdefault((name, one.kind), []).append(-one.value)
        scores: Scores = {}
        given = "_given_class" if model.conditional else ""
        for (name, kind), parts in found.items():
            nats = torch.cat(parts).double().cpu()  # (N,)
            mean, error = float(nats.mean()), float(nats.std() / math.sqrt(len(nats)))
            suffix = ("_density" if kind == "continuous" else "") + given
            scores[context.name(name + suffix)] = Metric(mean, "lower", error=error)
            if kind == "discrete":
                bits = 1 / (model.spec.size * math.log(2))
                named = context.name(name.replace("nll", "bpd") if "nll" in name else f"bpd_{name}")
                scores[named] = Metric(mean * bits, "lower", error=error * bits)
        return scores


@register("suite", "token_likelihood")
class TokenLikelihoodSuite(Suite):
    """Likelihood of text."""

    order = 11

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models of text with a likelihood; a preference between two answers has none."""
        return supports(model, SupportsLikelihood) and model.spec.text and not isinstance(model.spec.x, Preference)

    def measure(self, context: EvaluationContext) -> Scores:
        """Nats per token, perplexity, bits per byte."""
        return text_likelihood(context)


@register("suite", "prediction")
class PredictionSuite(Suite):
    """Accuracy of the most likely token: the next one, or a masked one."""

    order = 20

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models of text that predict tokens."""
        return supports(model, SupportsTokenAccuracy) and model.spec.text and not isinstance(model.spec.x, Preference)

    def measure(self, context: EvaluationContext) -> Scores:
        """The share of right tokens."""
        return predictions(context)


def text_likelihood(bench: EvaluationContext) -> Scores:
    """Nats per token, perplexity and bits per byte of the whole split, every token once, in blocks side by side.

    The context policy is in the name: in `blocks256` a token is predicted from those before it in its block of 256. Of
    pairs every target is scored whole, after its source, and of `answers` each, after its prompt.
    """
    model: Any = bench.model
    nats = tokens = known_nats = size = 0.0
    for batch in bench.batches(32):
        cost, target = model.token_nll(batch)
        cost, scored = cost.double(), target >= 0
        nats, tokens = nats + float(cost.sum()), tokens + float(scored.sum())
        if model.tokenizer is not None:
            sizes = model.sizes(target)
            known_nats, size = known_nats + float((cost * (sizes > 0)).sum()), size + float(sizes.sum())
    policy = context_policy(bench) + getattr(model, "scored", "")
    unit = (
        f"{model.tokenizer.registered_name}{model.spec.tokens.vocab_size}" if model.tokenizer is not None else "token"
    )
    scores: Scores = {
        f"nats_per_{unit}@{policy}": Metric(nats / tokens, "lower"),
        f"perplexity_{unit}@{policy}": Metric(math.exp(nats / tokens), "lower"),
    }
    if size:
        scores[f"bits_per_byte@{policy}"] = Metric(known_nats / size / math.log(2), "lower")
    return scores


def context_policy(bench: EvaluationContext) -> str:
    """The part of a name that says which tokens are asked for, and what is known of each."""
    if isinstance(bench.data, PromptResponseData):
        return f"answers_{bench.protocol.split}"
    blocks = f"_blocks{bench.model.spec.shape[0]}" if isinstance(bench.model.spec.x, Tokens) else ""
    return f"all_{bench.protocol.split}{blocks}"


def predictions(bench: EvaluationContext) -> Scores:
    """How often the likeliest token is the right one: the next, given those before it, or a hidden one, given all."""
    model: Any = bench.model
    found = torch.cat([model.token_hits(batch).cpu() for batch in bench.batches(32)]).double()
    what = "next" if supports(model, SupportsLikelihood) else "hidden"
    name = f"{what}_token_found@{context_policy(bench)}"
    return {name: Metric(float(found.mean()), "higher", error=float(found.std() / math.sqrt(max(len(found), 1))))}
