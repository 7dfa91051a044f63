"""Scenes of two groups of equal shapes, with captions that count them, and combinations that training never shows."""

import itertools
from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.data.image.captioned_shapes import COLOURS, OVERSAMPLING, RELATIONS, SHAPES, SIDE, CaptionedShapes, masks

COUNTS = ("a", "two", "three")
HELD_OUT = (("two", "square"), ("three", "circle"))  # never in training, which has all words in other combinations
ROWS = len(COUNTS)  # places of a group

Group = tuple[int, int, int]  # count - 1, colour, shape


@register("data", "counted_shapes")
class CountedShapes(CaptionedShapes):
    """Colour images, 24x24, of two groups of shapes: "two red squares left of a blue circle".

    A group has one to three equal shapes in a row. Four colours, three shapes and two relations give 2,592 captions.
    Two combinations of number and shape never occur in training: two squares and three circles. Every test picture has
    one of these, and no validation picture does. Sizes do not depend on the number. Tokens are words. 6,000 pictures
    are for training, 600 for validation and 600 for testing.

    Args:
        batch_size: samples per batch.
        seed: seed of the training order.
    """

    def all_scenes(self) -> list[tuple[int, ...]]:
        """Every scene: first group, relation, second group."""
        groups = list(itertools.product(range(len(COUNTS)), range(len(COLOURS)), range(len(SHAPES))))
        return [(*a, r, *b) for a in groups for r in range(len(RELATIONS)) for b in groups]

    def caption_of(self, scene: Any) -> str:
        """The caption of a scene."""
        return f"{group_text(scene[:3])} {RELATIONS[scene[3]]} {group_text(scene[4:])}"

    def has_held_out(self, scene: Any) -> bool:
        """Whether a scene has a combination that training does not show."""
        return any((COUNTS[scene[i]], SHAPES[scene[i + 2]]) in HELD_OUT for i in (0, 4))

    def draw(self, scenes: Tensor, generator: torch.Generator) -> Tensor:
        """Draw scenes (N, 7) in random places and sizes: uint8 (N, 3, 24, 24) on a dark background.

        The groups are in two halves of the picture: columns at the left and right, or rows above each other.
        """
        n, fine = len(scenes), SIDE * OVERSAMPLING
        points = (torch.arange(fine) + 0.5) / OVERSAMPLING
        canvas = torch.full((n, 3, fine, fine), 20.0)
        palette = torch.tensor(list(COLOURS.values()), dtype=torch.float32)
        above, slot = scenes[:, 3] == 1, SIDE / ROWS
        for half, (count, colour, shape) in enumerate((scenes[:, :3].T, scenes[:, 4:].T)):
            radius = 2.6 + 0.9 * torch.rand(n, generator=generator)  # pixels, of all shapes of a group
            shift = (torch.rand(n, generator=generator) - 0.5) * 2 * (5.8 - radius)
            places = torch.rand(n, ROWS, generator=generator).argsort(1)  # the first of these are filled
            for number in range(ROWS):
                along = 6 + 12 * half + shift
                free = (torch.rand(n, generator=generator) - 0.5) * 2 * (slot / 2 - 0.2 - radius)
                across = slot * (places[:, number] + 0.5) + free
                column, row = torch.where(above, across, along), torch.where(above, along, across)
                u = (points[None, None, :] - column.view(-1, 1, 1)) / radius.view(-1, 1, 1)
                v = (points[None, :, None] - row.view(-1, 1, 1)) / radius.view(-1, 1, 1)
                inside = torch.stack(masks(u, v))[shape, torch.arange(n)] & (number <= count).view(-1, 1, 1)
                canvas = torch.where(inside[:, None], palette[colour][:, :, None, None], canvas)
        return torch.nn.functional.avg_pool2d(canvas, OVERSAMPLING).round().to(torch.uint8)


def group_text(group: Any) -> str:
    """A group in words, such as "two red squares"."""
    count, colour, shape = group
    return f"{COUNTS[count]} {list(COLOURS)[colour]} {SHAPES[shape]}{'s' if count else ''}"


def scene_of(caption: str) -> tuple[int, ...]:
    """The scene of a caption.

    Raises:
        ValueError: not a caption of the grammar.
    """
    for number, relation in enumerate(RELATIONS):
        first, found, second = caption.partition(f" {relation} ")
        if found:
            return (*group_of(first), number, *group_of(second))
    raise ValueError(f"caption={caption!r}: not of the grammar. Write it like 'two red squares above a blue circle'.")


def group_of(text: str) -> Group:
    """Inverse of `group_text`.

    Raises:
        ValueError: not a group of the grammar.
    """
    words, colours = text.split(), list(COLOURS)
    known = len(words) == 3 and words[0] in COUNTS and words[1] in colours
    if not known or words[2].removesuffix("s") not in SHAPES or (words[2][-1] == "s") != (words[0] != "a"):
        raise ValueError(f"caption={text!r}: not of the grammar. Write it like 'two red squares'.")
    return COUNTS.index(words[0]), colours.index(words[1]), SHAPES.index(words[2].removesuffix("s"))
