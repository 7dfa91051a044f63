"""Error of translated images, where the true partner is known, and of there and back again."""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.spaces import Image, Unpaired
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.evaluation.context import Better, EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.metrics.reconstruction import reconstruction
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.image_abilities import SupportsImageTranslation

BETTER: dict[str, Better] = {"l1": "lower", "psnr": "higher", "ssim": "higher"}


@register("suite", "translated_images")
class TranslatedImagesSuite(Suite):
    """Error of held-out images that are translated.

    `translation_l1`, `_psnr` and `_ssim` compare with true partners, where the data have them; the note gives the error
    of the given image itself. A model that translates in both directions also has `reverse_` and `cycle_` metrics.
    """

    order = 60

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that translate images, and data of images given images."""
        return supports(model, SupportsImageTranslation) and isinstance(data.spec.condition, Image | Unpaired)

    def measure(self, context: EvaluationContext) -> Scores:
        """L1, PSNR and SSIM."""
        model: Any = context.model
        both = "reverse" in inspect.signature(model.translate).parameters
        known = isinstance(context.data.spec.condition, Image) or context.data.held_out_partners
        real: dict[str, list[Tensor]] = {"target": [], "source": []}
        found: dict[str, list[Tensor]] = {"translation": [], "reverse": [], "cycle": []}
        for number, (x, y) in enumerate(context.batches()):
            there = model.translate(y, generator=make_generator(context.protocol.seed, 7, number))
            real["target"].append(x.cpu())
            real["source"].append(y.cpu())
            found["translation"].append(there.cpu().float())
            if both:
                found["reverse"].append(model.translate(x, reverse=True).cpu().float())
                found["cycle"].append(model.translate(there, reverse=True).cpu().float())
        target, source = (torch.cat(parts) for parts in real.values())
        pairs = {"translation": (target, source), "reverse": (source, target)} if known else {}
        scores: Scores = {}
        for name, (wanted, given) in pairs.items():
            if found[name]:
                itself = errors(wanted, alike(given, wanted))
                for key, value in errors(wanted, torch.cat(found[name])).items():
                    note = f"{itself[key]:.4g} of the given image"
                    scores[context.name(f"{name}_{key}")] = Metric(value, BETTER[key], note=note)
        if both:
            for key, value in errors(source, torch.cat(found["cycle"])).items():
                scores[context.name(f"cycle_{key}")] = Metric(value, BETTER[key])
        return scores


def errors(x: Tensor, found: Tensor) -> dict[str, float]:
    """Mean absolute error, PSNR and SSIM of images (B, C, H, W) in [0, 1]."""
    compared = reconstruction(x, found)
    l1 = float((x.double() - found.double()).abs().mean())
    return {"l1": l1, "psnr": compared["psnr"], "ssim": compared["ssim"]}


def alike(x: Tensor, other: Tensor) -> Tensor:
    """Images (B, C, h, w) in another size, by the nearest pixel, and in other channels, as grey."""
    resized = F.interpolate(x, other.shape[-2:], mode="nearest-exact") if x.shape[-2:] != other.shape[-2:] else x
    channels = other.shape[1]
    return resized if resized.shape[1] == channels else resized.mean(1, keepdim=True).expand(-1, channels, -1, -1)
