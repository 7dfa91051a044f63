"""Handwritten digits with captions, to condition on texts."""

from typing import ClassVar

import torch

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Tokens
from zoo.core.spec import DataSpec
from zoo.data.image.digits import Digits
from zoo.data.text.tokenizers.base import dumps, encode_texts
from zoo.data.text.tokenizers.word import Word

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = ("{}", "a {}", "the digit {}", "a handwritten {}")
CAPTIONS = [template.format(name) for name in NAMES for template in TEMPLATES]  # of each digit in turn
LENGTH = max(caption.count(" ") + 1 for caption in CAPTIONS)


@register("data", "captioned_digits")
class CaptionedDigits(Digits):
    """The digits of `digits`, each with one of four captions, such as "three" or "a handwritten three".

    The caption of an image is fixed. Tokens are words.

    Args:
        batch_size: samples per batch.
        seed: seed of the training order.
    """

    licence = "CC-BY-4.0"
    class_texts: ClassVar[list[list[str]]] = [
        [template.format(name) for template in TEMPLATES] for name in NAMES
    ]  # of each digit

    def __init__(self, *, batch_size: PositiveInt = 64, seed: int = 0) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        self.tokenizer = Word().fit(CAPTIONS)

    @property
    def spec(self) -> DataSpec:
        """Images (1, 8, 8) given a text of at most three words."""
        text = Tokens(LENGTH, self.tokenizer.vocab_size, dumps(self.tokenizer))
        return DataSpec(super().spec.x, text, name="captioned_digits")

    def load(self) -> None:
        """Read the digits, and choose their captions."""
        super().load()
        tokens, generator = encode_texts(self.tokenizer, CAPTIONS, LENGTH), torch.Generator().manual_seed(0)
        for name in ("train", "val", "test"):
            x, y = getattr(self, name)
            form = torch.randint(len(TEMPLATES), y.shape, generator=generator)
            setattr(self, name, (x, tokens[len(TEMPLATES) * y + form]))
