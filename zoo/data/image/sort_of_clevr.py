"""Sort-of-CLEVR: scenes of six coloured shapes, with questions about one object and about relations."""

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Image, Questions, Tokens
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split, as_float
from zoo.data.loader import make_generator
from zoo.data.text.tokenizers.base import dumps, encode_texts
from zoo.data.text.tokenizers.word import Word

COLOURS = {
    "red": (230, 40, 40),
    "green": (40, 190, 60),
    "blue": (60, 80, 240),
    "orange": (240, 140, 40),
    "grey": (150, 150, 150),
    "yellow": (240, 230, 50),
}
SHAPES = ("circle", "square")
NUMBERS = ("one", "two", "three", "four", "five", "six")
ANSWERS = (*SHAPES, "yes", "no", *NUMBERS)
KINDS = {  # of questions about the object of each colour
    "what is the shape of the {} object?": "non_relational",
    "is the {} object on the left?": "non_relational",
    "is the {} object at the top?": "non_relational",
    "what is the shape of the object closest to the {} object?": "relational",
    "what is the shape of the object furthest from the {} object?": "relational",
    "how many objects have the shape of the {} object?": "relational",
}
QUESTIONS = [form.format(colour) for form in KINDS for colour in COLOURS]
SIDE, OVERSAMPLING = 32, 2  # pixels, and points per pixel and side
RADIUS = 2.4  # pixels; of a square, half its side
GAP = 0.5  # pixels, the least between the corners of two objects
EACH = 10  # questions of each group about a picture
TRAIN, HELD = 9800, 500  # pictures of the training split, and of the two others
PART = 500  # pictures that are drawn together


@register("data", "sort_of_clevr")
class SortOfCLEVR(DataModule):
    """Synthetic colour images, 32x32, of six objects, with 20 questions such as "is the red object on the left?".

    The recipe of Santoro et al. 2017 (arXiv:1706.01427), with smaller pictures, and questions in English. Each picture
    has an object of each colour: red, green, blue, orange, grey and yellow. Each is a circle or a square, at a random
    place. Ten questions are about one object: its shape, whether it is on the left, whether it is at the top. Ten are
    about relations: the shape of the object closest to it or furthest from it, the number of objects of its shape,
    itself included. Kinds and colours of questions are random. Each answer is one word. 9,800 pictures are for
    training, 500 for validation and 500 for testing.

    Args:
        batch_size: pictures per batch.
        seed: seed of the training order.
    """

    licence = "generated"

    def __init__(self, *, batch_size: PositiveInt = 32, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        self.tokenizer = Word().fit([*QUESTIONS, *ANSWERS])
        self.length = max(len(self.tokenizer.encode(question)) for question in QUESTIONS)

    @property
    def spec(self) -> DataSpec:
        """Images (3, 32, 32) with 20 questions."""
        text = Tokens(self.length, self.tokenizer.vocab_size, dumps(self.tokenizer))
        return DataSpec(Image(3, SIDE, SIDE), Questions(2 * EACH, text), name="sort_of_clevr")

    @staticmethod
    def group_of(question: str) -> str:
        """Group of a question: "relational" or "non_relational"."""
        forms = list(KINDS)
        return KINDS[forms[QUESTIONS.index(question) // len(COLOURS)]]

    def load(self) -> None:
        """Place objects, draw them, and answer questions about them."""
        questions = encode_texts(self.tokenizer, QUESTIONS, self.length)  # (36, T)
        words = encode_texts(self.tokenizer, ANSWERS, 1)[:, 0]  # (10,)
        splits: list[Split] = []
        for number, n in enumerate((TRAIN, HELD, HELD)):
            generator = make_generator(0, number)
            places, shapes = scenes(n, generator)
            pictures = [draw(*some) for some in zip(places.split(PART), shapes.split(PART), strict=True)]
            asked = choose_questions(n, generator)  # (N, 20)
            answers = words[answers_of(places, shapes).gather(1, asked)]
            splits.append((torch.cat(pictures), torch.cat([questions[asked], answers[:, :, None]], 2)))
        self.train, self.val, self.test = splits

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Floats in [0, 1] (B, 3, 32, 32), and questions with answers (B, 20, T + 1)."""
        x, y = super().fetch(split, indices, generator, train=train)
        return as_float(x), y

    keep_on_gpu = True


def scenes(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Centres (N, 6, 2), column and row in pixels, and shapes (N, 6) of objects, which do not overlap."""
    places = torch.zeros(n, len(COLOURS), 2)
    apart = 2 * 2**0.5 * RADIUS + GAP
    for k in range(len(COLOURS)):
        todo = torch.arange(n)
        while len(todo):
            new = RADIUS + (SIDE - 2 * RADIUS) * torch.rand(len(todo), 2, generator=generator)
            free = ((places[todo, :k] - new[:, None]).norm(dim=2) > apart).all(1)
            places[todo[free], k] = new[free]
            todo = todo[~free]
    return places, torch.randint(len(SHAPES), (n, len(COLOURS)), generator=generator)


def choose_questions(n: int, generator: torch.Generator) -> Tensor:
    """Ten questions of each group for each of n pictures: places in `QUESTIONS` (N, 20), the non-relational first."""
    half = len(QUESTIONS) // 2
    return torch.cat([torch.randint(half, (n, EACH), generator=generator) + start for start in (0, half)], 1)


def answers_of(places: Tensor, shapes: Tensor) -> Tensor:
    """Answers to all questions about scenes (N, 6, 2) and (N, 6): places in `ANSWERS` (N, 36)."""
    distance = torch.cdist(places, places)  # (N, 6, 6)
    nearest = distance.masked_fill(torch.eye(len(COLOURS), dtype=torch.bool), torch.inf).argmin(2)
    same = (shapes[:, :, None] == shapes[:, None]).sum(2)  # (N, 6), itself included
    yes, one = ANSWERS.index("yes"), ANSWERS.index("one")
    half = (places >= SIDE / 2).long()  # 0 on the left and at the top
    furthest = distance.argmax(2)
    each = [
        shapes, yes + half[..., 0], yes + half[..., 1], shapes.gather(1, nearest), shapes.gather(1, furthest),
        one + same - 1,
    ]  # fmt: skip
    return torch.cat(each, 1)


def draw(places: Tensor, shapes: Tensor) -> Tensor:
    """Draw scenes (N, 6, 2) and (N, 6): uint8 (N, 3, 32, 32) on a dark background."""
    fine = SIDE * OVERSAMPLING
    points = (torch.arange(fine) + 0.5) / OVERSAMPLING
    seen = torch.zeros(len(places), fine, fine, dtype=torch.int64)  # 0 is the background
    for k in range(len(COLOURS)):
        u = (points[None, None, :] - places[:, k, 0].view(-1, 1, 1)).abs() / RADIUS
        v = (points[None, :, None] - places[:, k, 1].view(-1, 1, 1)).abs() / RADIUS
        circle = shapes[:, k].view(-1, 1, 1) == SHAPES.index("circle")
        seen[torch.where(circle, u.square() + v.square(), torch.maximum(u, v)) < 1] = k + 1
    palette = torch.tensor([(20, 20, 20), *COLOURS.values()], dtype=torch.float32)
    canvas = palette[seen].permute(0, 3, 1, 2)  # (N, 3, fine, fine)
    return torch.nn.functional.avg_pool2d(canvas, OVERSAMPLING).round().to(torch.uint8)
