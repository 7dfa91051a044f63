"""Likelihood metrics: nats, bits per dimension, bits per byte."""

import math
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Preference, Series, Tokens, Vector
from zoo.data.base import DataModule
from zoo.evaluation.context import BATCH, EvaluationContext, Metric, Scores, count
from zoo.evaluation.suites.base import Suite
from zoo.models.abilities import SupportsLikelihood, SupportsLogProb, SupportsTokenAccuracy
from zoo.models.ability import supports
from zoo.models.base import Model


@runtime_checkable
class KnownDensity(Protocol):
    """Data that were drawn from a known density."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density of samples (B, *shape), nats (B,)."""
        ...


@register("suite", "likelihood")
class LikelihoodSuite(Suite):
    """Negative log-likelihood of the split in nats: exact, or bounds with 1 and k importance samples.

    Log-probabilities of levels are given in bits per dimension too. A log-density depends on the scale of the data; its
    metric contains "density". For data with a known density, `excess` is the difference in nats from it: an estimate
    of the Kullback-Leibler divergence KL(data | model), which no scale changes. Where samples are given a text, there
    is also the likelihood with the text of another sample.
    """

    order = 10

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models with a likelihood; a preference between two answers does not have one."""
        return supports(model, SupportsLikelihood) and not isinstance(model.spec.x, Preference)

    def measure(self, context: EvaluationContext) -> Scores:
        """All likelihoods of the model."""
        if context.model.spec.text:
            return text_likelihood(context)
        scores = self.of(context, 1, BATCH)
        if reads_text(context.model):
            scores |= self.of(context, 1, BATCH, shuffled=True)
        if any(metric.startswith("nelbo") for metric in scores):
            scores |= self.of(context, context.protocol.k, BATCH // 4)
        return scores

    def of(self, context: EvaluationContext, k: int, size: int, shuffled: bool = False) -> Scores:
        """The likelihoods from k samples, in batches of a size; `shuffled` gives each sample the text of another."""
        model: Any = context.model
        found: dict[tuple[str, str], list[Tensor]] = {}
        true: list[Tensor] = []  # nats of the data's own density, (B,) each
        text = reads_text(model)
        reads = model.conditional or text or isinstance(context.data.spec.condition, Series)
        last: Tensor | None = None  # the text before the first of a batch
        for x, y in context.batches(size):
            if shuffled:
                last, y = y[-1:], torch.cat([y[-1:] if last is None else last, y[:-1]])
            for one in model.likelihoods(x, y if reads else None, k=k):
                name = one.name if k == 1 or one.exact else f"{one.name}{count(k)}"
                found.setdefault((name, one.kind), []).append(-one.value)
            if knows_density(context.data):
                true.append(-context.data.log_prob(x.cpu()))
        scores: Scores = {}
        of_text = "_given_other_text" if shuffled else "_given_text" if text else ""
        given = "_given_class" if model.conditional else of_text
        for (name, kind), parts in found.items():
            nats = torch.cat(parts).double().cpu()  # (N,)
            mean, error = float(nats.mean()), standard_error(nats)
            suffix = ("_density" if kind == "continuous" else "") + given
            scores[context.name(name + suffix)] = Metric(mean, "lower", error=error)
            if kind == "continuous" and true and not model.conditional:
                excess = nats - torch.cat(true).double()
                scores[context.name(f"excess_{name}")] = Metric(
                    float(excess.mean()), "lower", error=standard_error(excess)
                )
            if kind == "discrete" and not shuffled:
                bits = 1 / (model.spec.size * math.log(2))
                named = context.name(name.replace("nll", "bpd") if "nll" in name else f"bpd_{name}")
                scores[named] = Metric(mean * bits, "lower", error=None if error is None else error * bits)
        return scores


def knows_density(data: DataModule) -> TypeGuard[KnownDensity]:
    """Whether the data contain the exact density of their samples, in the units of the samples."""
    return isinstance(data, KnownDensity) and isinstance(data.spec.x, Vector | Series)


@register("suite", "prediction")
class PredictionSuite(Suite):
    """Accuracy of the most likely token: the next one, or a masked one."""

    order = 20

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models of text that predict tokens."""
        return supports(model, SupportsTokenAccuracy) and model.spec.text and not isinstance(model.spec.x, Preference)

    def measure(self, context: EvaluationContext) -> Scores:
        """Token accuracy."""
        return predictions(context)


def reads_text(model: Model) -> bool:
    """Whether likelihoods of samples depend on a text that they are given with."""
    return not model.spec.text and isinstance(getattr(model, "given", None), Tokens)


def text_likelihood(context: EvaluationContext) -> Scores:
    """Measure nats per token, perplexity and bits per byte of the whole split; every token is scored once.

    The name contains the context policy. `blocks256`: tokens are predicted from the previous ones in a block of 256.
    `answers`: whole answers after their prompts. For pairs, whole targets after their sources. `bound`: an upper bound.
    """
    model: Any = context.model
    nats = tokens = known_nats = size = 0.0
    for batch in context.batches(32):
        cost, target = model.token_nll(batch)
        cost, scored = cost.double(), target >= 0
        nats, tokens = nats + float(cost.sum()), tokens + float(scored.sum())
        if model.tokenizer is not None:
            sizes = model.sizes(target)
            known_nats, size = known_nats + float((cost * (sizes > 0)).sum()), size + float(sizes.sum())
    kind = "" if supports(model, SupportsLogProb) else "_bound"
    place = f"{kind}@{context_policy(context)}{getattr(model, 'scored', '')}"
    unit = (
        f"{model.tokenizer.registered_name}{model.spec.tokens.vocab_size}" if model.tokenizer is not None else "token"
    )
    scores: Scores = {
        f"nats_per_{unit}{place}": Metric(nats / tokens, "lower"),
        f"perplexity_{unit}{place}": Metric(math.exp(nats / tokens), "lower"),
    }
    if size:
        scores[f"bits_per_byte{place}"] = Metric(known_nats / size / math.log(2), "lower")
    return scores


def context_policy(context: EvaluationContext) -> str:
    """The part of a metric's name for scored tokens and their context."""
    if policy := getattr(context.data, "policy", ""):
        return str(policy)
    if context.data.prompted:
        return f"answers_{context.protocol.split}"
    blocks = f"_blocks{context.model.spec.shape[0]}" if isinstance(context.model.spec.x, Tokens) else ""
    return f"all_{context.protocol.split}{blocks}"


def predictions(context: EvaluationContext) -> Scores:
    """Measure the accuracy of the most likely token: the next one, or a masked one."""
    model: Any = context.model
    found = torch.cat([model.token_hits(batch).cpu() for batch in context.batches(32)]).double()
    what = "next" if supports(model, SupportsLikelihood) else "hidden"
    name = f"{what}_token_found@{context_policy(context)}"
    return {name: Metric(float(found.mean()), "higher", error=standard_error(found))}


def standard_error(values: Tensor) -> float | None:
    """Standard error of the mean of values (N,); None for fewer than two."""
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
