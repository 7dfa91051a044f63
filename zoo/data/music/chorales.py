"""Chorales by Johann Sebastian Bach."""

import json
import math
from typing import Any

import torch
from torch import Tensor

from zoo.core.cache import data_file
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import Count, PositiveInt
from zoo.data.music.voices import MARKED, Pieces, VoiceData

VOICES = 4


@register("data", "chorales")
class Chorales(VoiceData):
    """Bach's chorales in four voices on a grid of sixteenth notes, in `jsb-chorales-16th.json`.

    The usual split (Boulanger-Lewandowski et al. 2012, arXiv:1206.6392; Huang et al. 2017, ISMIR) has 229, 76 and 77
    pieces. A note is the pitch of one voice in one step, whether it begins there or is held. In 384 of the 92,536 steps
    fewer than four voices sound, and the silent one is not named. They are read as rests and not scored. Without the
    file, take data=synthetic_chorales.

    Args:
        path: folder that contains the file; null is `$ZOO_DATA`, else `~/.cache/zoo`.
        steps: of a window; four are a beat.
        transpose: largest transposition of training pieces in semitones; 0 is off.
        batch_size: windows per batch.
        seed: seed of the order, shifts and transpositions.
    """

    licence = "public domain"
    FILE = "jsb-chorales-16th.json"
    SOURCE = "https://github.com/czhuang/JSB-Chorales-dataset (Jsb16thSeparated.json)"

    def __init__(
        self,
        *,
        path: str | None = None,
        steps: PositiveInt = 64,
        transpose: Count = 6,
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(steps, transpose, VOICES, 4, 90, batch_size, seed)
        self.path = path

    def read(self) -> tuple[Pieces, Pieces, Pieces]:
        """Read the file.

        Raises:
            DataError: no such file, or other contents.
        """
        file = data_file(self.path, self.FILE, self.SOURCE, instead="synthetic_chorales")
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            train, val, test = ([piece_of(steps) for steps in found[name]] for name in ("train", "valid", "test"))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{file}: not chorales ({error!r}). Save {self.SOURCE} in its place.") from None
        return train, val, test


def piece_of(steps: Any) -> Tensor:
    """Steps with pitches, missing or not a number where no voice sounds -> (S, 4)."""
    rows = []
    for step in steps:
        pitches = [int(p) for p in step if not math.isnan(p) and p >= 0]
        rows.append(pitches if len(pitches) == VOICES else [MARKED] * VOICES)
    return torch.tensor(rows).view(-1, VOICES)
