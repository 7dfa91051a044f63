"""Spoken digits by hidden Markov models, on a slice of the real recordings."""

import os
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from zoo.benchmarks import documentation_answers
from zoo.benchmarks.spoken_digits import (
    by_classifier,
    by_network,
    fit_words,
    main,
    padded,
    read_recordings,
    recognise,
)

ARCHIVE = Path(os.environ.get("ZOO_DATA", "none")) / "free-spoken-digits.zip"


@pytest.mark.skipif(not ARCHIVE.is_file(), reason="no recordings in $ZOO_DATA")
def test_three_words_of_an_unheard_speaker_are_recognised() -> None:
    recordings = [r for r in read_recordings(ARCHIVE, range(4)) if r.word < 3]
    assert len(recordings) == 3 * 6 * 4
    x, mask = padded(recordings)
    assert x[~mask].abs().sum() == 0
    own = [r for r in recordings if r.speaker == "theo"]
    models = fit_words(
        [r for r in recordings if r.speaker != "theo"], n_states=5, n_components=1, min_variance=0.1, iterations=5
    )
    words = torch.tensor([r.word for r in own])
    assert float((recognise(models, own) == words).double().mean()) > 0.8
    assert by_classifier(ARCHIVE.parent, "theo", steps=60) > 0.3, "chance is 0.1"
    assert by_network([r for r in recordings if r.speaker != "theo"], own, steps=40) > 0.6, "chance is 1/3"
    warped = own[0].warped(1.1)
    assert warped.frames.shape == own[0].frames.shape
    assert float((warped.frames - own[0].frames).abs().mean()) > 0.05
    torch.testing.assert_close(own[0].warped(1.0).frames, own[0].frames)
    shuffled = {word: models[(word + 1) % 3] for word in models}
    assert float((recognise(shuffled, own) == words).double().mean()) < 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.zip"], "none.zip: no such file. Save "),
        (["text.zip"], "text.zip: not the spoken digits (File is not a zip file). Save "),
        (["empty.zip"], "empty.zip: has no recordings. Save "),
        (["other.zip"], "other.zip: not the spoken digits ("),
        (["empty.zip", "--speakers", "nobody"], "--speakers=nobody: not a speaker. Choose from george, "),
        (["empty.zip", "--neural", "--steps", "0"], "--steps=0: not a number of batches. Give at least 1."),
    ],
)
def test_mistakes_are_one_sentence(words, message, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "text.zip").write_text("text")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("song.wav", b"RIFF")
    monkeypatch.setattr(sys, "argv", ["spoken_digits", str(tmp_path / words[0]), *words[1:]])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert message in capsys.readouterr().err


def test_no_questions_are_refused(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["documentation_answers", "--questions", "0"])
    with pytest.raises(SystemExit) as ended:
        documentation_answers.main()
    assert ended.value.code == 1
    assert "--questions=0: not a positive number." in capsys.readouterr().err
