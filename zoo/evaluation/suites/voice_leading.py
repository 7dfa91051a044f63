"""Voice leading of generated music."""

import math
from typing import Any

import torch

from zoo.core.registry import register
from zoo.core.spaces import Voices
from zoo.data.base import DataModule
from zoo.data.music.note import to_frames
from zoo.data.music.voices import VoiceData
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.metrics.voice_leading import voice_leading
from zoo.models.abilities import SupportsTextGeneration
from zoo.models.ability import supports
from zoo.models.base import Model

N_PIECES = 64


@register("suite", "voice_leading")
class VoiceLeadingSuite(Suite):
    """Parallel fifths and octaves, and voices that cross, in 100 transitions; the references are those of real pieces.

    Composers avoid them, and do not exclude them. A model should be near the real pieces.
    """

    order = 32
    draws = True

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that generate music in at least two voices."""
        space = model.spec.x
        music = isinstance(space, Voices) and space.voices > 1 and isinstance(data, VoiceData)
        return supports(model, SupportsTextGeneration) and music

    def measure(self, context: EvaluationContext) -> Scores:
        """`parallel_fifths`, `parallel_octaves` and `voice_crossings`; NaN where no drawn note changes."""
        model: Any = context.model
        data: Any = context.data
        n = min(context.protocol.samples or N_PIECES, N_PIECES)
        made = model.generate([""] * n, max_new_tokens=model.spec.x.length, seed=context.protocol.seed)
        pieces = [to_frames(torch.tensor(each.tokens, dtype=torch.int64), model.spec.x.voices) for each in made]
        split = context.protocol.split
        held = [*data.pieces[1], *data.pieces[2]] if split == "held_out" else data.pieces[1 + (split == "test")]
        real = voice_leading(held)
        return {
            context.name(name, n): Metric(value, "reference", None if math.isnan(real[name]) else real[name])
            for name, value in voice_leading(pieces).items()
        }
