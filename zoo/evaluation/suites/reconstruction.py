"""Reconstruction metrics."""

import torch

from zoo.evaluation.context import Better, EvaluationContext, Metric, Scores
from zoo.metrics.reconstruction import reconstruction
from zoo.models.abilities import (
    SupportsLatents,
)

# -- latents and reconstructions -----------------------------------------------------------------------------------


def reconstructions(bench: EvaluationContext) -> Scores:
    """Held-out data through the latent and back."""
    model = bench.model
    if not isinstance(model, SupportsLatents):
        return {}
    pairs = [(x.cpu(), model.reconstruct(x, y).cpu().float()) for x, y in bench.batches()]
    found = reconstruction(*(torch.cat(side) for side in zip(*pairs, strict=True)))
    better: dict[str, Better] = {"mse": "lower", "psnr": "higher", "ssim": "higher"}
    return {bench.name(f"reconstruction_{key}"): Metric(value, better[key]) for key, value in found.items()}
