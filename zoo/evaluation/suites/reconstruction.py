"""Reconstruction metrics."""

from typing import Any

import torch

from zoo.core.registry import register
from zoo.data.base import DataModule
from zoo.evaluation.context import Better, EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.metrics.reconstruction import reconstruction
from zoo.models.abilities import SupportsLatents
from zoo.models.ability import supports
from zoo.models.base import Model


@register("suite", "reconstruction")
class ReconstructionSuite(Suite):
    """Error of held-out data through the latent and back."""

    order = 60

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models with latents."""
        return supports(model, SupportsLatents)

    def measure(self, context: EvaluationContext) -> Scores:
        """MSE, PSNR, SSIM."""
        return reconstructions(context)


def reconstructions(context: EvaluationContext) -> Scores:
    """Compare held-out data with their reconstructions."""
    model: Any = context.model
    pairs = [(x.cpu(), model.reconstruct(x, y).cpu().float()) for x, y in context.batches()]
    found = reconstruction(*(torch.cat(side) for side in zip(*pairs, strict=True)))
    better: dict[str, Better] = {"mse": "lower", "psnr": "higher", "ssim": "higher"}
    return {context.name(f"reconstruction_{key}"): Metric(value, better[key]) for key, value in found.items()}
