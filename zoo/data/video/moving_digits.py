"""Handwritten digits that move through a square by a known law."""

from typing import ClassVar

import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Label, Video
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split
from zoo.data.image.digits import Digits
from zoo.data.loader import make_generator

DIGIT = 8  # side of a digit, pixels
SPEEDS = (-2, -1, 1, 2)  # pixels per frame, in each direction
HELD_OUT_MOTIONS = 4  # of each held-out digit


@register("data", "moving_digits")
class MovingDigits(DataModule):
    """Synthetic videos: one of scikit-learn's digits moves with constant speed, and bounces off the edges of a square.

    Speeds down and right are -2, -1, 1 or 2 pixels per frame, and independent. So are the first place, which is
    uniform, and the digit, which is the label. Two frames without a bounce determine all others, if the black margin of
    the digit is known. Digits of the three splits are those of `digits`. Each training batch draws new motions.
    Held-out motions are fixed, four for each.

    Args:
        frames: of a video.
        size: side of the square, pixels; more than 9, so that no digit touches two opposite edges in one step.
        batch_size: videos per batch.
        seed: seed of the training order and motions; held-out videos do not depend on it.

    Raises:
        DataError: a square that is too small.
    """

    licence = "CC-BY-4.0"
    factor_names: ClassVar[tuple[str, ...]] = ("digit", "speed_down", "speed_right")
    digits: Tensor  # (1797, 8, 8), float in [0, 1]

    def __init__(
        self, *, frames: PositiveInt = 8, size: PositiveInt = 16, batch_size: PositiveInt = 32, seed: int = 0
    ) -> None:
        super().__init__(batch_size, seed)
        if size < DIGIT + max(SPEEDS):
            raise DataError(f"data.size={size}: too small for a digit to move. Set at least {DIGIT + max(SPEEDS)}.")
        self.frames, self.size = frames, size

    @property
    def spec(self) -> DataSpec:
        """Videos (frames, 1, size, size) of ten classes."""
        return DataSpec(Video(self.frames, 1, self.size, self.size, levels=17), Label(10), name=self.registered_name)

    def load(self) -> None:
        """Read the digits, and draw the fixed motions."""
        still = Digits()
        still.load()
        parts = [still.train, still.val, still.test]
        self.digits = torch.cat([x for x, _ in parts])[:, 0]
        splits, first = [], 0
        for number, (_, y) in enumerate(parts):
            repeats = 1 if number == 0 else HELD_OUT_MOTIONS
            rows = (first + torch.arange(len(y))).repeat_interleave(repeats)
            motions = draw_motions(len(rows), self.size - DIGIT, make_generator(number))
            splits.append((torch.cat([rows[:, None], motions], 1), y.repeat_interleave(repeats)))
            first += len(y)
        self.train, self.val, self.test = splits  # x: digit and motion, int64 (N, 5)

    def factors(self, x: Tensor) -> Tensor:
        """Digit, and speeds down and right less 1, without direction, of stored samples (N, 5): int64 (N, 3)."""
        labels = torch.cat([self.train[1], self.val[1], self.test[1]])
        rows = torch.cat([self.train[0], self.val[0], self.test[0]])[:, 0]
        digit = torch.zeros(len(self.digits), dtype=torch.int64).index_put((rows,), labels)
        return torch.cat([digit[x[:, 0]][:, None], x[:, 3:].abs() - 1], 1)

    def tracks(self) -> Tensor:
        """All possible places along one axis in the frames of a video, (K, frames)."""
        room = self.size - DIGIT
        start, speed = torch.meshgrid(torch.arange(room + 1), torch.tensor(SPEEDS), indexing="ij")
        motions = torch.stack([start, start, speed, speed], 2).flatten(0, 1)
        return places(motions, self.frames, room)[..., 0].unique(dim=0)

    def resident_tensors(self) -> list[Tensor]:
        """Motions, and the digits."""
        return [*super().resident_tensors(), self.digits]

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Floats in [0, 1] (B, frames, 1, size, size); new motions in training."""
        rows, y = super().fetch(split, indices, generator, train=train)
        motions = draw_motions(len(rows), self.size - DIGIT, generator) if train else rows[:, 1:]
        return draw_videos(self.digits[rows[:, 0]], motions, self.frames, self.size), y


def draw_motions(n: int, room: int, generator: torch.Generator) -> Tensor:
    """First places from 0 to `room`, and speeds: (top, left, down, right), int64 (n, 4)."""
    start = torch.randint(room + 1, (n, 2), generator=generator)
    speed = torch.tensor(SPEEDS)[torch.randint(len(SPEEDS), (n, 2), generator=generator)]
    return torch.cat([start, speed], 1)


def places(motions: Tensor, frames: int, room: int) -> Tensor:
    """Top and left of each frame, int64 (N, frames, 2), of motions (N, 4) that are reflected at 0 and `room`."""
    free = motions[:, None, :2] + motions[:, None, 2:] * torch.arange(frames)[:, None]  # without edges
    within = free % (2 * room)
    return torch.where(within > room, 2 * room - within, within)


def draw_videos(digits: Tensor, motions: Tensor, frames: int, size: int) -> Tensor:
    """Digits (N, 8, 8) on black along motions (N, 4): (N, frames, 1, size, size)."""
    n, side = len(digits), torch.arange(DIGIT)
    top, left = places(motions, frames, size - DIGIT).unbind(2)  # (N, frames)
    rows, columns = top[..., None, None] + side[:, None], left[..., None, None] + side  # (N, frames, 8, 1), (.., 1, 8)
    video = torch.zeros(n, frames, size, size)
    at = torch.arange(n)[:, None, None, None], torch.arange(frames)[:, None, None]
    video[*at, rows, columns] = digits[:, None].expand(-1, frames, -1, -1)
    return video[:, :, None]
