"""Likelihood metrics: nats, bits per dimension, bits per byte."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.core.spaces import Preference, Tokens
from zoo.data.text.instructions import PromptResponseData
from zoo.evaluation.context import BATCH, EvaluationContext, Metric, Scores, count
from zoo.models.abilities import (
    SupportsBound,
    SupportsLogProb,
    SupportsTokenAccuracy,
)

# -- likelihoods -------------------------------------------------------------------------------------------------


def likelihood(bench: EvaluationContext) -> Scores:
    """Nats of the whole split: exact, or a lower bound on the likelihood and the tighter one of k samples.

    Bits per dimension where the model gives probabilities of the data's levels; those of a density depend on the
    data's scale, and its name says that it is one.
    """
    model = bench.model
    if isinstance(model.spec.x, Preference):
        return {}  # a comparison of two answers is no likelihood of anything
    if model.spec.text:
        return text_likelihood(bench) if isinstance(model, SupportsLogProb) else {}
    kind = model.likelihood_kind
    if kind == "none":
        return {}
    suffix = ("_density" if kind == "continuous" else "") + ("_given_class" if model.conditional else "")
    scores: Scores = {}

    def add(metric: str, nats: Tensor) -> None:
        """The mean of nats per sample (N,), and the same in bits per dimension."""
        error = float(nats.std() / math.sqrt(len(nats)))
        scores[bench.name(metric + suffix)] = Metric(float(nats.mean()), "lower", error=error)
        if kind == "discrete":
            bits = 1 / (model.spec.size * math.log(2))
            name = bench.name(metric.replace("nll", "bpd") if "nll" in metric else f"bpd_{metric}")
            scores[name] = Metric(float(nats.mean()) * bits, "lower", error=error * bits)

    def over_split(method: Callable[..., Tensor], size: int, *options: Any) -> Tensor:
        parts = [method(x, *options, y=y if model.conditional else None) for x, y in bench.batches(size)]
        return -torch.cat(parts).double().cpu()

    if isinstance(model, SupportsLogProb):
        add("nll", over_split(model.log_prob, BATCH))
    if isinstance(model, SupportsBound):
        add("nelbo", over_split(model.bound, BATCH, 1))
        add(f"nll_iw{count(bench.protocol.k)}", over_split(model.bound, BATCH // 4, bench.protocol.k))
    return scores


def text_likelihood(bench: EvaluationContext) -> Scores:
    """Nats per token, perplexity and bits per byte of the whole split, every token once, in blocks side by side.

    The context policy is in the name: in `blocks256` a token is predicted from those before it in its block of 256. Of
    pairs every target is scored whole, after its source, and of `answers` each, after its prompt.
    """
    model: Any = bench.model
    nats = tokens = known_nats = size = 0.0
    for batch in bench.batches(32):
        cost, target = model.nats(batch)
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
    model = bench.model
    if model.spec.x.registered_name not in ("tokens", "pair") or not isinstance(model, SupportsTokenAccuracy):
        return {}
    found = torch.cat([model.guesses(batch).cpu() for batch in bench.batches(32)]).double()
    what = "next" if isinstance(model, SupportsLogProb) else "hidden"
    name = f"{what}_token_found@{context_policy(bench)}"
    return {name: Metric(float(found.mean()), "higher", error=float(found.std() / math.sqrt(max(len(found), 1))))}
