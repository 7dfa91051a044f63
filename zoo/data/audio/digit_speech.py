"""Spoken digits with their texts, to condition on a text and a voice."""

from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Tokens
from zoo.core.spec import DataSpec
from zoo.data.audio.spoken_digits import SPEAKERS, SpokenDigits
from zoo.data.base import Split
from zoo.data.text.tokenizers.base import dumps, encode_texts
from zoo.data.text.tokenizers.word import Word

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICED, ALONE = ("{word} by {speaker}", "{digit} by {speaker}"), ("{word}", "{digit}")
LENGTH = 3  # words of a text
WITHOUT_VOICE = 0.2  # share of the training texts that do not name the speaker


def texts_of(forms: tuple[str, ...], digit: int, speaker: str) -> list[str]:
    """The texts of one class in each form."""
    return [form.format(word=WORDS[digit], digit=digit, speaker=speaker) for form in forms]


@register("data", "digit_speech")
class DigitSpeech(SpokenDigits):
    """The recordings of `spoken_digits`, each with its text, such as "seven by theo" or "7 by theo".

    The text of a recording is fixed. A fifth of the training texts does not name the speaker. Tokens are words.

    Args:
        path: folder that contains the archive; null is `$ZOO_DATA`, else `~/.cache/zoo`.
        samples: of a sound, 8,000 per second.
        batch_size: sounds per batch.
        seed: seed of the training order.
    """

    class_texts: ClassVar[list[list[str]]] = [
        texts_of(VOICED, digit, speaker) for speaker in SPEAKERS for digit in range(10)
    ]  # of each digit and speaker

    def __init__(
        self, *, path: str | None = None, samples: PositiveInt = 4096, batch_size: PositiveInt = 16, seed: int = 0
    ) -> None:
        super().__init__(path=path, speakers=True, samples=samples, batch_size=batch_size, seed=seed)
        alone = [text for digit in range(10) for text in texts_of(ALONE, digit, "")]
        self.tokenizer = Word().fit([*alone, *(text for texts in self.class_texts for text in texts)])

    @property
    def spec(self) -> DataSpec:
        """Waveforms (1, samples) given a text of at most three words."""
        text = Tokens(LENGTH, self.tokenizer.vocab_size, dumps(self.tokenizer))
        return DataSpec(super().spec.x, text, name=self.registered_name)

    @cached_property
    def labelled(self) -> SpokenDigits:
        """The same recordings with digits and speakers as labels, on which a recogniser is trained."""
        return SpokenDigits(path=self.path, speakers=True, samples=self.samples, seed=self.seed)

    def read(self) -> tuple[Split, Split, Split]:
        """Read the archive, and choose texts.

        Raises:
            DataError: no such file, or other contents.
        """
        generator = torch.Generator().manual_seed(0)
        train, val, test = super().read()
        return (
            (train[0], self.choose(train[1], WITHOUT_VOICE, generator)),
            (val[0], self.choose(val[1], 0.0, generator)),
            (test[0], self.choose(test[1], 0.0, generator)),
        )

    def choose(self, labels: Tensor, alone: float, generator: torch.Generator) -> Tensor:
        """A random text for each label (N,): tokens (N, T)."""
        form = torch.randint(2, labels.shape, generator=generator).tolist()
        bare = (torch.rand(labels.shape, generator=generator) < alone).tolist()
        texts = [
            texts_of(ALONE if without else VOICED, label % 10, SPEAKERS[label // 10])[which]
            for label, which, without in zip(labels.tolist(), form, bare, strict=True)
        ]
        return encode_texts(self.tokenizer, texts, LENGTH)
