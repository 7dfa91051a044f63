"""Distances of images with a transferred style from the style and from the content."""

import re
from typing import Any

import torch

from zoo.core.registry import register
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.image_abilities import SupportsStyleTransfer


@register("suite", "style")
class StyleSuite(Suite):
    """Distances of style and of content of held-out images, in the features that the metric's name contains.

    The note gives those of the content itself, without a transfer. They compare only in the same features.
    """

    order = 65

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that transfer styles, and measure them."""
        return supports(model, SupportsStyleTransfer) and hasattr(model, "style_distances")

    def measure(self, context: EvaluationContext) -> Scores:
        """Means over images of `style_distances`."""
        model: Any = context.model
        rows: dict[str, list[torch.Tensor]] = {}
        for number, batch in enumerate(context.batches()):
            content, style = model.content_and_style(batch)
            found = model.stylize(content, style, generator=make_generator(context.protocol.seed, 8, number))
            with torch.no_grad():
                for key, images in (("found", found), ("content", content)):
                    for name, values in model.style_distances(images, content, style).items():
                        rows.setdefault(f"{key} {name}", []).append(values.cpu())
        means = {key: float(torch.cat(values).double().mean()) for key, values in rows.items()}
        source = re.sub(r"\W+", "_", model.style_source.removeprefix("the "))
        return {
            context.name(f"{name}_distance_{source}"): Metric(
                means[f"found {name}"], "lower", note=f"{means[f'content {name}']:.4g} of the content itself"
            )
            for name in ("style", "content")
        }
