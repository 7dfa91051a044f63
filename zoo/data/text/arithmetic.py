"""Sums and differences, made from a seed: a task on which a program can tell right from wrong, at every stage.

    data=arithmetic                a corpus to pre-train on: a share of the answers is wrong, as in text from the web
    data=arithmetic_instructions   questions with right answers, for supervised fine-tuning and for rewards
    data=arithmetic_preferences    questions with a right and a wrong answer

A question belongs to one split, the same in all three: what is held out was never trained on, in any of them.
"""

import random
from zlib import crc32

from zoo.core.registry import register
from zoo.core.signature import Fraction, PositiveInt
from zoo.core.spaces import Preference, Space, Tokens
from zoo.data.text.datamodule import Texts, TokenizerChoice, TokenWindows
from zoo.data.text.instructions import PromptResponseData, Row


def questions(max_operand: int) -> tuple[list[tuple[str, int]], list[tuple[str, int]], list[tuple[str, int]]]:
    """Every sum a+b= and difference a-b= of numbers up to `max_operand`, with its value, by split: of 20 parts one is for
    validation, one for testing, chosen by the CRC-32 of the question.
    """
    parts: tuple[list[tuple[str, int]], ...] = [], [], []
    for a in range(max_operand + 1):
        for b in range(max_operand + 1):
            for question, value in ((f"{a}+{b}=", a + b), (f"{a}-{b}=", a - b)):
                parts[{0: 1, 1: 2}.get(crc32(question.encode()) % 20, 0)].append((question, value))
    return parts[0], parts[1], parts[2]


def mistaken(value: int, chance: random.Random) -> int:
    """A number near the right one, as a slip makes it: off by 1, 2, 10 or 20 either way."""
    return value + chance.choice((-20, -10, -2, -1, 1, 2, 10, 20))


@register("data", "arithmetic")
class Arithmetic(TokenWindows):
    """Sums and differences with their answers, of which a share is wrong: something to pre-train on.

    Args:
        max_operand: of the numbers.
        error_rate: share of the answers that are off, at random.
        repeats: how often each question comes, each time with an answer of its own.
        context: tokens in a window, which holds several questions.
        tokenizer: fitted to the training part.
        batch_size: windows a batch.
        seed: of the order and place of windows.
    """

    def __init__(
        self,
        *,
        max_operand: PositiveInt = 99,
        error_rate: Fraction = 0.3,
        repeats: PositiveInt = 2,
        context: PositiveInt = 64,
        tokenizer: TokenizerChoice = "char",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.max_operand, self.error_rate, self.repeats = max_operand, error_rate, repeats

    def read(self) -> Texts:
        """One text per question and copy, shuffled."""
        chance, splits = random.Random(1), []
        for part in questions(self.max_operand):
            texts = [
                f"{question}{mistaken(value, chance) if chance.random() < self.error_rate else value}"
                for question, value in part * self.repeats
            ]
            chance.shuffle(texts)
            splits.append(texts)
        return splits[0], splits[1], splits[2]


@register("data", "arithmetic_instructions")
class ArithmeticInstructions(PromptResponseData):
    """Sums and differences with right answers, which alone are scored.

    Args:
        max_operand: of the numbers.
        examples: training questions, at most: demonstrations are dear.
        context: most tokens of a row; null is that of the model that is trained on, else 256.
        tokenizer: fitted to the training rows, if no model brings one.
        batch_size: rows a batch.
        seed: of their order.
    """

    def __init__(
        self,
        *,
        max_operand: PositiveInt = 99,
        examples: PositiveInt | None = None,
        context: PositiveInt | None = None,
        tokenizer: TokenizerChoice = "char",
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(context, False, tokenizer, batch_size, seed)
        self.max_operand, self.examples = max_operand, examples

    def rows(self) -> tuple[list[Row], list[Row], list[Row]]:
        """Questions in random order."""
        parts: list[list[Row]] = [[(q, str(value)) for q, value in part] for part in shuffled(self.max_operand)]
        return parts[0][: self.examples], parts[1], parts[2]


@register("data", "arithmetic_preferences")
class ArithmeticPreferences(PromptResponseData):
    """Sums and differences with a right answer and one that is off.

    Args:
        max_operand: of the numbers.
        examples: training questions, at most.
        context: most tokens of a row; null is that of the model that is trained on, else 256.
        tokenizer: fitted to the training rows, if no model brings one.
        batch_size: pairs a batch.
        seed: of their order.
    """

    def space_of(self, text: Tokens) -> Space:
        """A better and a worse answer."""
        return Preference(text)

    answers = 2

    def __init__(
        self,
        *,
        max_operand: PositiveInt = 99,
        examples: PositiveInt | None = None,
        context: PositiveInt | None = None,
        tokenizer: TokenizerChoice = "char",
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(context, False, tokenizer, batch_size, seed)
        self.max_operand, self.examples = max_operand, examples

    def rows(self) -> tuple[list[Row], list[Row], list[Row]]:
        """Questions in random order, each with a slip of its own."""
        chance = random.Random(2)
        parts: list[list[Row]] = [
            [(q, str(value), str(mistaken(value, chance))) for q, value in part] for part in shuffled(self.max_operand)
        ]
        return parts[0][: self.examples], parts[1], parts[2]


def shuffled(max_operand: int) -> list[list[tuple[str, int]]]:
    """`questions` in random order, always the same."""
    chance, parts = random.Random(3), [list(part) for part in questions(max_operand)]
    for part in parts:
        chance.shuffle(part)
    return parts
