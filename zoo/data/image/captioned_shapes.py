"""Scenes of two shapes with captions by a grammar, and combinations that training never shows."""

import itertools
from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Image, Tokens
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split, as_float
from zoo.data.loader import make_generator
from zoo.data.text.tokenizers.base import dumps, encode_texts
from zoo.data.text.tokenizers.word import Word

COLOURS = {"red": (230, 40, 40), "green": (40, 190, 60), "blue": (60, 80, 240), "yellow": (240, 220, 50)}
SHAPES = ("circle", "square", "triangle")
RELATIONS = ("left of", "above")
HELD_OUT = (("red", "triangle"), ("blue", "circle"), ("green", "square"))  # never in training
SIDE, OVERSAMPLING = 24, 2  # pixels, and points per pixel and side
FORM = "a {} {} {} a {} {}"
TRAIN, HELD = 6000, 600  # pictures of the training split, and of the two others
PART = 500  # pictures that are drawn together

Scene = tuple[int, int, int, int, int]  # colour and shape of the first, relation, colour and shape of the second


@register("data", "captioned_shapes")
class CaptionedShapes(DataModule):
    """Colour images, 24x24, of two shapes with a caption, such as "a red circle left of a blue square".

    Four colours, three shapes and two relations give 288 captions. Three combinations of colour and shape never occur
    in training: red triangle, blue circle, green square. Every test picture has one of these, and no validation
    picture does. Colours and shapes of the three occur in other combinations. Tokens are words. 6,000 pictures are for
    training, 600 for validation and 600 for testing; positions and sizes are random.

    Args:
        batch_size: samples per batch.
        seed: seed of the training order.
    """

    licence = "generated"

    def __init__(self, *, batch_size: PositiveInt = 64, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        self.scenes = self.all_scenes()
        self.captions = [self.caption_of(scene) for scene in self.scenes]
        self.tokenizer = Word().fit(self.captions)
        self.length = max(len(self.tokenizer.encode(caption)) for caption in self.captions)

    @property
    def spec(self) -> DataSpec:
        """Images (3, 24, 24) given a caption."""
        text = Tokens(self.length, self.tokenizer.vocab_size, dumps(self.tokenizer))
        return DataSpec(Image(3, SIDE, SIDE), text, name=self.registered_name)

    def load(self) -> None:
        """Choose scenes, and draw them."""
        new = torch.tensor([self.has_held_out(scene) for scene in self.scenes])
        known, unknown = (~new).nonzero()[:, 0], new.nonzero()[:, 0]
        tokens = encode_texts(self.tokenizer, self.captions, self.length)
        splits: list[Split] = []
        for number, (allowed, n) in enumerate(((known, TRAIN), (known, HELD), (unknown, HELD))):
            generator = make_generator(0, number)
            chosen = allowed[torch.randint(len(allowed), (n,), generator=generator)]
            scenes = torch.tensor([self.scenes[i] for i in chosen.tolist()])
            pictures = [self.draw(some, generator) for some in scenes.split(PART)]
            splits.append((torch.cat(pictures), tokens[chosen]))
        self.train, self.val, self.test = splits

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Floats in [0, 1] (B, 3, 24, 24), and tokens (B, T)."""
        x, y = super().fetch(split, indices, generator, train=train)
        return as_float(x), y

    keep_on_gpu = True

    # -- the grammar -----------------------------------------------------------------------------------------

    def all_scenes(self) -> list[tuple[int, ...]]:
        """Every scene of the grammar."""
        objects = list(itertools.product(range(len(COLOURS)), range(len(SHAPES))))
        return [(*a, r, *b) for a in objects for r in range(len(RELATIONS)) for b in objects]

    def caption_of(self, scene: Any) -> str:
        """The caption of a scene."""
        return caption_of(scene)

    def has_held_out(self, scene: Any) -> bool:
        """Whether a scene has a combination that training does not show."""
        return has_held_out(scene)

    def draw(self, scenes: Tensor, generator: torch.Generator) -> Tensor:
        """Draw scenes (N, ...): uint8 (N, 3, 24, 24)."""
        return draw(scenes, generator)


def has_held_out(scene: Scene) -> bool:
    """Whether a scene has a combination that training does not show."""
    names = list(COLOURS)
    return any((names[scene[i]], SHAPES[scene[i + 1]]) in HELD_OUT for i in (0, 3))


def caption_of(scene: Scene) -> str:
    """The caption of a scene."""
    colours = list(COLOURS)
    first, second, relation = scene[:2], scene[3:], RELATIONS[scene[2]]
    return FORM.format(colours[first[0]], SHAPES[first[1]], relation, colours[second[0]], SHAPES[second[1]])


def scene_of(caption: str) -> Scene:
    """Inverse of `caption_of`.

    Raises:
        ValueError: not a caption of the grammar.
    """
    words, colours = caption.split(), list(COLOURS)
    relation = " ".join(words[3:-3])
    if len(words) not in (7, 8) or words[0] != "a" or words[-3] != "a" or relation not in RELATIONS:
        raise ValueError(f"caption={caption!r}: not of the grammar. Write it like 'a red circle above a blue square'.")
    return (
        colours.index(words[1]), SHAPES.index(words[2]), RELATIONS.index(relation),
        colours.index(words[-2]), SHAPES.index(words[-1]),
    )  # fmt: skip


def draw(scenes: Tensor, generator: torch.Generator) -> Tensor:
    """Draw scenes (N, 5) in random places and sizes: uint8 (N, 3, 24, 24) on a dark background.

    The shapes are in two halves of the picture: left and right, or upper and lower.
    """
    n, fine = len(scenes), SIDE * OVERSAMPLING
    points = (torch.arange(fine) + 0.5) / OVERSAMPLING
    canvas = torch.full((n, 3, fine, fine), 20.0)
    palette = torch.tensor(list(COLOURS.values()), dtype=torch.float32)
    above = scenes[:, 2] == 1
    for place, (colour, shape) in enumerate(((scenes[:, 0], scenes[:, 1]), (scenes[:, 3], scenes[:, 4]))):
        radius = 3.6 + 1.4 * torch.rand(n, generator=generator)  # pixels
        along = 6 + 12 * place + (torch.rand(n, generator=generator) - 0.5) * 2 * (5.8 - radius)
        across = 12 + (torch.rand(n, generator=generator) - 0.5) * 2 * (11 - radius)
        column, row = torch.where(above, across, along), torch.where(above, along, across)
        u = (points[None, None, :] - column.view(-1, 1, 1)) / radius.view(-1, 1, 1)
        v = (points[None, :, None] - row.view(-1, 1, 1)) / radius.view(-1, 1, 1)
        inside = torch.stack(masks(u, v))[shape, torch.arange(n)][:, None]  # (N, 1, fine, fine)
        canvas = torch.where(inside, palette[colour][:, :, None, None], canvas)
    return torch.nn.functional.avg_pool2d(canvas, OVERSAMPLING).round().to(torch.uint8)


def masks(u: Tensor, v: Tensor) -> list[Tensor]:
    """Points inside each shape of radius one, v downwards: bool tensors in the order of `SHAPES`."""
    u, v = torch.broadcast_tensors(u, v)
    return [
        u.square() + v.square() < 1,
        torch.maximum(u.abs(), v.abs()) < 0.85,
        (v < 0.8) & (v > -1) & (u.abs() < (v + 1) / 1.8),
    ]
