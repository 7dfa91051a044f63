"""Error of frames that a model predicts from the first ones, beside simple predictions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Video
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.likelihood import standard_error
from zoo.metrics.frame_prediction import extrapolate_motion, frame_errors, repeat_last
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.image_abilities import SupportsFramePrediction

MAX_VIDEOS = 100  # a posterior sample needs gradients at each step
ROWS = 25  # videos at once

Predict = Callable[[Tensor, int], Tensor]  # frames (N, K, C, H, W) and a number n -> the next ones (N, n, C, H, W)


@register("suite", "frame_prediction")
class FramePredictionSuite(Suite):
    """Squared error of the second half of held-out videos, given the first half, per frame.

    The error is summed over the values of a frame. Its parts are those of the first to the last predicted frame. A
    model draws one continuation of each video. A draw of the true posterior has twice the expected error of its mean.
    So a blurred mean has a smaller error than a sharp draw. Classes are not given.

    The floors are those of the same videos: the last frame again, and motion along a line for data of one moving thing.
    """

    order = 37

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that continue videos of at least 2 frames."""
        space = data.spec.x
        return supports(model, SupportsFramePrediction) and isinstance(space, Video) and space.frames > 1

    def measure(self, context: EvaluationContext) -> Scores:
        """`frame_error_given_K`, and the floors `frame_error_last_frame_given_K` and `frame_error_linear_given_K`."""
        model: Any = context.model
        x = context.held_out[0][: min(MAX_VIDEOS, context.n)].cpu()
        k = x.shape[1] // 2
        chunks = [
            model.predict_frames(rows.to(model.device), generator=make_generator(context.protocol.seed, 11, number))
            for number, rows in enumerate(x[:, :k].split(ROWS))
        ]
        drawn = torch.cat([chunk[:, k:].cpu() for chunk in chunks])
        found = {"frame_error": drawn}
        for name, rule in floors(context.data, k).items():
            found[f"frame_error_{name}"] = rule(x[:, :k], x.shape[1] - k)
        scores: Scores = {}
        for name, predicted in found.items():
            errors = frame_errors(predicted, x[:, k:])  # (N, F - K)
            scores[context.name(f"{name}_given_{k}", len(x))] = Metric(
                float(errors.mean()),
                "lower",
                error=standard_error(errors.mean(1)),
                parts=tuple(errors.mean(0).tolist()),
            )
        return scores


def floors(data: DataModule, k: int) -> dict[str, Predict]:
    """Simple predictions that the data define, given k frames."""
    moving = k > 1 and hasattr(data, "tracks")
    found: dict[str, Predict] = {"last_frame": repeat_last}
    return found | {"linear": extrapolate_motion} if moving else found
