"""Frames and motion of videos."""

from typing import Any

import torch

from zoo.core.registry import register
from zoo.core.spaces import Video
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.features.base import PixelFeatures
from zoo.evaluation.suites.base import Suite
from zoo.metrics.frechet import frechet, moments
from zoo.metrics.motion import motion_scores
from zoo.models.abilities import SupportsSampling
from zoo.models.ability import supports
from zoo.models.base import Model


@register("suite", "frames")
class FramesSuite(Suite):
    """Frechet distance of single frames, whatever their order: `fd_frames_pixels`."""

    order = 35
    draws = True

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that sample videos."""
        return supports(model, SupportsSampling) and isinstance(data.spec.x, Video)

    def measure(self, context: EvaluationContext) -> Scores:
        """Frames of samples against those of held-out data, in pixels that are projected to 64 dimensions."""
        space: Any = context.data.spec.x
        features = PixelFeatures(DataSpec(space.frame))
        drawn, held, training = (
            moments(features(x.flatten(0, 1))) for x in (context.drawn[0], context.held_out[0], context.training)
        )
        value, reference = (float(frechet(some, held)) for some in (drawn, training))
        return {context.name(f"fd_frames_{features.name}", context.n): Metric(value, "lower", reference)}


@register("suite", "motion")
class MotionSuite(Suite):
    """Whether videos move by the known law of their data."""

    order = 36
    draws = True

    def applies(self, model: Model, data: DataModule) -> bool:
        """Videos from data with known paths."""
        moving = isinstance(data.spec.x, Video) and hasattr(data, "tracks")
        return supports(model, SupportsSampling) and moving

    def measure(self, context: EvaluationContext) -> Scores:
        """`motion_error`, pixels from the nearest possible path, and `motion_kept`, the share of videos below 0.5."""
        data: Any = context.data
        tracks: torch.Tensor = data.tracks()
        found, reference = (motion_scores(x, tracks) for x in (context.drawn[0], context.training))
        return {
            context.name("motion_error", context.n): Metric(found["error"], "lower", reference["error"]),
            context.name("motion_kept", context.n): Metric(found["kept"], "higher", reference["kept"]),
        }
