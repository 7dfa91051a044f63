"""Metrics of the latent space."""

import inspect
import math
from typing import Any

import torch

from zoo.core.registry import register
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.metrics.latent import active_units, aggregate_match, kl_per_dim
from zoo.models.abilities import SupportsLatents, SupportsPosterior, SupportsPrior
from zoo.models.ability import supports
from zoo.models.base import Model

FEW = "not measured: fewer than 2 held-out samples"
N_LATENTS = 5_000  # compared with the prior; kernels take a second per 10 million pairs


@register("suite", "latent")
class LatentSuite(Suite):
    """Use of the latents, and their match with draws from the prior."""

    order = 70

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models with latents."""
        return supports(model, SupportsLatents)

    def measure(self, context: EvaluationContext) -> Scores:
        """KL of each dimension, active units, distance from the prior."""
        return latents(context)


def latents(context: EvaluationContext) -> Scores:
    """Measure the latents of held-out data."""
    model: Any = context.model
    scores: Scores = {}
    if supports(model, SupportsPosterior):
        both = [torch.stack(model.posterior(x, y)).cpu() for x, y in context.batches()]
        means, log_std = torch.cat(both, dim=1)  # each (N, D)
        z = means + log_std.exp() * torch.randn(means.shape, generator=make_generator(context.protocol.seed, 4))
        rates = kl_per_dim(means, log_std)
        scores[context.name("kl_to_standard_normal")] = Metric(float(rates.sum()), "lower", parts=tuple(rates.tolist()))
    else:
        z = means = torch.cat([model.encode(x, y).cpu() for x, y in context.batches()])
        if "sample" in inspect.signature(model.encode).parameters:  # draws have the law of the prior; means do not
            z = torch.cat([model.encode(x, y, sample=True).cpu() for x, y in context.batches()])
    few = len(means) < 2
    units = Metric(math.nan, "higher", note=FEW) if few else Metric(active_units(means), "higher")
    scores[context.name(f"active_units_of_{means.shape[1]}")] = units
    if supports(model, SupportsPrior) and few:
        scores[context.name("latent_mmd", len(z))] = Metric(math.nan, "lower", note=FEW)
    elif supports(model, SupportsPrior):
        z = z[:N_LATENTS]
        one, two = (model.sample_prior(len(z), make_generator(context.protocol.seed, 5 + i)).cpu() for i in (0, 1))
        scores[context.name("latent_mmd", len(z))] = Metric(aggregate_match(z, one), "lower", aggregate_match(two, one))
    return scores
