"""Spoken digits with texts: texts are those of the recordings, and the labelled form has equal rows."""

import io
import wave
import zipfile

import pytest
import torch

import zoo
from zoo.core.errors import DataError
from zoo.core.spaces import Audio, Tokens
from zoo.data.audio.digit_speech import WITHOUT_VOICE, WORDS
from zoo.data.audio.spoken_digits import SPEAKERS
from zoo.data.text.tokenizers.base import encode_texts
from zoo.evaluation.suites.recognition import classes_of_texts


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Five recordings of noise of each class in each held-out split, and ten in training."""
    folder = tmp_path_factory.mktemp("speech")
    generator = torch.Generator().manual_seed(0)
    with zipfile.ZipFile(folder / "free-spoken-digits.zip", "w") as archive:
        for digit in range(10):
            for speaker in SPEAKERS:
                for take in range(20):
                    buffer = io.BytesIO()
                    with wave.open(buffer, "wb") as file:
                        file.setnchannels(1)
                        file.setsampwidth(2)
                        file.setframerate(8000)
                        noise = torch.randint(-999, 999, (300,), generator=generator).to(torch.int16)
                        file.writeframes(noise.numpy().tobytes())
                    archive.writestr(f"recordings/{digit}_{speaker}_{take}.wav", buffer.getvalue())
    found = zoo.create_data("digit_speech", path=str(folder), samples=256)
    found.setup()
    return found


def test_texts_are_those_of_the_labels(data):
    assert data.spec.x == Audio(1, 256, 8000)
    assert isinstance(data.spec.condition, Tokens)
    data.labelled.setup()
    alone = 0
    for split in ("train", "val", "test"):
        (x, texts), (sounds, labels) = getattr(data, split), getattr(data.labelled, split)
        assert torch.equal(x, sounds)
        for row, label in zip(texts, labels.tolist(), strict=True):
            text = data.tokenizer.decode([token for token in row.tolist() if token >= 0])
            word, *voice = text.split(" by ")
            assert word in (WORDS[label % 10], str(label % 10))
            assert voice in ([SPEAKERS[label // 10]], [])
            assert voice or split == "train", "held-out texts name the speaker"
            alone += not voice
    n = len(data.train[1])
    assert alone == pytest.approx(WITHOUT_VOICE * n, abs=4 * (WITHOUT_VOICE * (1 - WITHOUT_VOICE) * n) ** 0.5)


def test_listed_texts_are_those_of_the_classes(data):
    data.labelled.setup()
    listed = [encode_texts(data.tokenizer, texts, 3) for texts in data.class_texts]
    assert len(listed) == data.labelled.spec.n_classes == 60
    assert torch.equal(classes_of_texts(data.test[1], listed), data.labelled.test[1])
    parts = data.labelled.label_parts
    assert data.class_texts[37] == ["seven by nicolas", "7 by nicolas"]
    assert (int(parts["digit"][37]), SPEAKERS[int(parts["speaker"][37])]) == (7, "nicolas")
    assert zoo.create_data("spoken_digits").label_parts == {}


def test_texts_do_not_change_and_other_words_are_refused(data):
    again = zoo.create_data("digit_speech", path=data.path, samples=256)
    again.setup()
    assert torch.equal(again.train[1], data.train[1])
    with pytest.raises(DataError, match=r"text='seven eight nine by theo': 14 tokens, more than 3"):
        encode_texts(data.tokenizer, ["seven eight nine by theo"], 3)
