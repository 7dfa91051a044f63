"""Recognition: shares against a loop, chance for permuted labels, texts as classes, and where it applies."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo.core.spaces import Audio, Label, Tokens
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.data.text.tokenizers.base import dumps, encode_texts
from zoo.data.text.tokenizers.word import Word
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.recognition import RecognitionSuite, agreement, classes_of_texts

K, N = 6, 240  # classes are word + 3 * voice
PARTS = {"word": torch.arange(K) % 3, "voice": torch.arange(K) // 3}
TEXTS = [[f"{word} by {voice}", f"say {word} by {voice}"] for voice in ("ann", "bob") for word in ("a1", "b2", "c3")]
WORDS = Word().fit([text for texts in TEXTS for text in texts])
GIVEN = Tokens(4, WORDS.vocab_size, dumps(WORDS))


class Recogniser:
    """The class that a constant sound has as its level."""

    name, n_classes = "toy", K

    def classify(self, x: Tensor) -> Tensor:
        return (x[:, 0, 0] * K).round().long()


class Speaker:
    """Samples of the class asked for, but in every fourth the next word, and in every eighth another voice."""

    device, registered_name, display_name = torch.device("cpu"), "speaker", "speaker"
    abilities = ("sample",)

    def __init__(self, given: Tokens | None = None, works: bool = True) -> None:
        self.given, self.conditional, self.works = given, given is None, works
        self.spec = zoo.DataSpec(Audio(1, 8, 8000), given or Label(K), name="toy")

    def text_condition(self, texts: list[str]) -> Tensor:
        return encode_texts(WORDS, texts, 4)

    def sample(self, n: int, *, condition: Tensor, generator: torch.Generator) -> Tensor:
        y = condition if self.given is None else classes_of_texts(condition, list(map(self.text_condition, TEXTS)))
        word, voice, place = y % 3, y // 3, torch.arange(n)
        said = (word + (place % 4 == 1).long()) % 3 + 3 * ((voice + (place % 8 == 2).long()) % 2)
        said = said if self.works else torch.randint(K, (n,), generator=generator)
        return (said / K)[:, None, None].expand(-1, 1, 8)


class Context(EvaluationContext):
    features = Recogniser()  # type: ignore[assignment]


class Recordings(DataModule):
    """Constant sounds in all splits."""

    spec = zoo.DataSpec(Audio(1, 8, 8000), Label(K), name="toy")  # type: ignore[assignment]
    label_parts = PARTS

    def __init__(self, x: Tensor, labels: Tensor) -> None:
        super().__init__(4, 0)
        self.split = x, labels

    def load(self) -> None:
        self.train = self.val = self.test = self.split


def recordings(given: Tokens | None = None) -> Any:
    labels = torch.randint(K, (N,), generator=make_generator(0))
    x = (labels / K)[:, None, None].expand(-1, 1, 8).clone()
    x[::10] = (x[::10] + 1 / K) % 1  # a tenth of the recordings is not recognised
    data: Any = Recordings(x, labels)
    data.setup()
    if given is not None:
        form = torch.randint(2, (N,), generator=make_generator(1)).tolist()
        texts = [TEXTS[label][which] for label, which in zip(labels.tolist(), form, strict=True)]
        data.test = x, encode_texts(WORDS, texts, 4)
        data.class_texts, data.labelled = TEXTS, SimpleNamespace(label_parts=PARTS)
    return data, labels


@pytest.mark.parametrize("given", [None, GIVEN], ids=["labels", "texts"])
def test_shares_are_those_of_a_loop(given: Tokens | None) -> None:
    data, labels = recordings(given)
    context: Any = Context(Speaker(given), data, EvaluationConfig(samples=N))  # type: ignore[arg-type]
    scores = RecognitionSuite().measure(context)
    held, _ = context.held_out
    asked = [int(labels[row]) for row in context.order]
    heard = [round(float(x[0, 0]) * K) for x in held]
    said = []
    for place, label in enumerate(asked):
        word, voice = label % 3, label // 3
        word = (word + 1) % 3 if place % 4 == 1 else word
        said.append(word + 3 * ((voice + 1) % 2 if place % 8 == 2 else voice))
    for part, of in {"": lambda c: c, "word_": lambda c: c % 3, "voice_": lambda c: c // 3}.items():
        score = scores[f"recognised_{part}toy@{N}_test"]
        assert score.value == pytest.approx(sum(of(a) == of(b) for a, b in zip(said, asked, strict=True)) / N)
        assert score.real_data_reference == pytest.approx(
            sum(of(a) == of(b) for a, b in zip(heard, asked, strict=True)) / N
        )
    assert scores[f"recognised_toy@{N}_test"].value == pytest.approx(0.625)
    assert scores[f"recognised_voice_toy@{N}_test"].value == pytest.approx(0.875)


def test_permuted_labels_and_a_model_that_ignores_them_are_at_chance() -> None:
    data, _ = recordings()
    error = 4 * (K - 1) ** 0.5 / K / N**0.5  # four standard errors of a share of 1 / K
    deaf = RecognitionSuite().measure(Context(Speaker(works=False), data, EvaluationConfig(samples=N)))  # type: ignore
    right = RecognitionSuite().measure(Context(Speaker(), data, EvaluationConfig(samples=N)))  # type: ignore[arg-type]
    for score in (right[f"recognised_shuffled_toy@{N}_test"], deaf[f"recognised_toy@{N}_test"]):
        assert score.value == pytest.approx(1 / K, abs=error)
    control = right[f"recognised_shuffled_toy@{N}_test"].real_data_reference
    assert control == pytest.approx(1 / K, abs=error), "real recordings are not recognised by labels of others"


def test_a_text_that_is_not_listed_is_never_right() -> None:
    listed = [encode_texts(WORDS, texts, 4) for texts in TEXTS]
    rows = torch.cat([listed[2][1:], encode_texts(WORDS, ["a1"], 4), listed[5][:1]])
    assert classes_of_texts(rows, listed).tolist() == [2, -1, 5]
    found, asked = torch.tensor([2, 0, 4]), torch.tensor([2, -1, 5])
    assert agreement(found, asked, torch.arange(K)) == pytest.approx(1 / 3)
    assert agreement(found, asked, PARTS["voice"]) == pytest.approx(2 / 3)


def test_it_applies_to_sounds_that_are_asked_for() -> None:
    suite, (data, _), (spoken, _) = RecognitionSuite(), recordings(), recordings(GIVEN)
    small = {"name": "wavenet", "d_model": 4, "n_layers": 2}
    tones = zoo.create_data("synthetic_tones")
    asked, free = (
        zoo.create_model("pixel_transformer", data=tones, backbone=small, conditional=flag) for flag in (True, False)
    )
    assert suite.applies(asked, tones)
    assert not suite.applies(free, tones), "nothing is asked for"
    digits = zoo.create_data("digits")
    assert not suite.applies(zoo.create_model("image_gpt", data=digits, conditional=True), digits), "pictures"
    assert suite.applies(Speaker(GIVEN), spoken)  # type: ignore[arg-type]
    assert not suite.applies(Speaker(GIVEN), data), "texts of classes are not listed"  # type: ignore[arg-type]
