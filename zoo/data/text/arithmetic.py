"""Synthetic sums and differences: a task whose answers a program can check, for every stage of training.

- data=arithmetic: a corpus for pre-training, in which a share of the answers is wrong, as in text from the web.
- data=arithmetic_instructions: questions with right answers, for supervised fine-tuning and for rewards.
- data=arithmetic_preferences: questions with a right and a wrong answer.

Each question belongs to the same split in all three, so that a held-out question is never trained on.
"""

import random
from zlib import crc32

from zoo.core.registry import register
from zoo.core.signature import Fraction, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Preference, Tokens
from zoo.data.text.datamodule import Texts, TokenizerChoice, TokenWindows
from zoo.data.text.prompts import PromptResponseData, Row


def questions(max_operand: int) -> tuple[list[tuple[str, int]], list[tuple[str, int]], list[tuple[str, int]]]:
    """Make all questions a+b= and a-b= with their values, by split.

    A question whose CRC-32 is 0 modulo 20 is for validation, 1 for testing.
    """
    parts: tuple[list[tuple[str, int]], ...] = [], [], []
    for a in range(max_operand + 1):
        for b in range(max_operand + 1):
            for question, value in ((f"{a}+{b}=", a + b), (f"{a}-{b}=", a - b)):
                parts[{0: 1, 1: 2}.get(crc32(question.encode()) % 20, 0)].append((question, value))
    return parts[0], parts[1], parts[2]


def near_miss(value: int, rng: random.Random) -> int:
    """Draw a wrong answer: off by 1, 2, 10 or 20 either way."""
    return value + rng.choice((-20, -10, -2, -1, 1, 2, 10, 20))


@register("data", "arithmetic")
class Arithmetic(TokenWindows):
    """Sums and differences with answers, of which a share is wrong: a made corpus to pre-train on.

    Args:
        max_operand: largest number in a question.
        error_rate: share of wrong answers, drawn at random.
        repeats: repetitions of each question, each with its own answer.
    """

    licence = "generated"

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
        """Make one text per question and repetition, shuffled."""
        rng, splits = random.Random(1), []
        for part in questions(self.max_operand):
            texts = [
                f"{question}{near_miss(value, rng) if rng.random() < self.error_rate else value}"
                for question, value in part * self.repeats
            ]
            rng.shuffle(texts)
            splits.append(texts)
        return splits[0], splits[1], splits[2]


@register("data", "arithmetic_instructions")
class ArithmeticInstructions(PromptResponseData):
    """Sums and differences with right answers, for model=sft and model=grpo.

    Args:
        max_operand: largest number in a question.
        examples: maximum number of training questions; null is all.
    """

    licence = "generated"

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
        """Questions in random order with their answers."""
        parts: list[list[Row]] = [[(q, str(value)) for q, value in part] for part in shuffled(self.max_operand)]
        return parts[0][: self.examples], parts[1], parts[2]


@register("data", "arithmetic_preferences")
class ArithmeticPreferences(PromptResponseData):
    """Sums and differences with a right and a wrong answer, for model=dpo.

    Args:
        max_operand: largest number in a question.
        examples: maximum number of training questions; null is all.
    """

    licence = "generated"

    def space_of(self, text: Tokens) -> Space:
        """A chosen and a rejected answer."""
        return Preference(text)

    n_answers = 2

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
        """Questions in random order, each with a right and a wrong answer."""
        rng = random.Random(2)
        parts: list[list[Row]] = [
            [(q, str(value), str(near_miss(value, rng))) for q, value in part] for part in shuffled(self.max_operand)
        ]
        return parts[0][: self.examples], parts[1], parts[2]


def shuffled(max_operand: int) -> list[list[tuple[str, int]]]:
    """`questions` in a fixed random order."""
    rng, parts = random.Random(3), [list(part) for part in questions(max_operand)]
    for part in parts:
        rng.shuffle(part)
    return parts
