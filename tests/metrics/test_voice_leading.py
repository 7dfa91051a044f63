"""Broken rules of voice leading: by hand, by a slow count, and on music with shuffled voices."""

import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import zoo
from zoo.core.spaces import Voices
from zoo.data.loader import make_generator
from zoo.data.music.note import to_tokens
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.voice_leading import VoiceLeadingSuite
from zoo.metrics.voice_leading import shuffled_voices, transitions, voice_leading


def score(*steps):
    return list(voice_leading([torch.tensor(steps)]).values())


def test_rules_by_hand():
    assert score((67, 60), (69, 62)) == [100, 0, 0], "C-G to D-A"
    assert score((67, 60), (62, 69)) == [0, 0, 100], "the voices move apart, and cross"
    assert score((79, 60), (81, 62)) == [100, 0, 0], "a twelfth is a fifth"
    assert score((72, 60), (74, 62)) == [0, 100, 0]
    assert score((60, 60), (62, 62)) == [0, 100, 0], "unisons"
    assert score((67, 60), (67, 60), (69, 62)) == [100, 0, 0], "a held step is not a transition"
    assert score((67, 60), (67, 60)) == pytest.approx([math.nan] * 3, nan_ok=True)
    assert score((67, 60), (79, 72)) == [100, 0, 0], "both leap an octave"
    assert score((67, 60), (74, 55)) == [0, 0, 0], "fifths by contrary motion are not parallel"
    assert score((65, 60), (67, 60)) == [0, 0, 0], "oblique motion"
    assert score((67, 60), (-1, 62), (69, 62)) == pytest.approx([math.nan] * 3, nan_ok=True), "rests"
    assert score((72, 67, 60), (74, 69, 62)) == [100, 100, 0]
    assert score((72, 67, 60), (74, 69, 62), (74, 67, 62), (60, 62, 64)) == [100 / 3, 100 / 3, 200 / 3]
    one = torch.tensor([(67, 60), (69, 62)])
    two = torch.tensor([(65, 60), (67, 60)])
    assert voice_leading([one, two])["parallel_fifths"] == 50
    assert [len(part) for part in transitions(one)] == [1, 1]


def test_a_slow_count_agrees():
    frames = torch.randint(55, 70, (400, 4), generator=make_generator(0))
    frames[torch.rand(400, generator=make_generator(1)) < 0.05, 2] = -1
    fifths = octaves = crossings = total = 0
    for before, after in zip(frames[:-1].tolist(), frames[1:].tolist(), strict=True):
        if min(before + after) < 0 or before == after:
            continue
        total += 1
        crossings += sum(after[i] < after[i + 1] for i in range(3))
        for i in range(4):
            for j in range(i + 1, 4):
                if (after[i] - before[i]) * (after[j] - before[j]) > 0:
                    pair = abs(before[i] - before[j]) % 12, abs(after[i] - after[j]) % 12
                    fifths += pair == (7, 7)
                    octaves += pair == (0, 0)
    found = voice_leading([frames])
    assert list(found.values()) == pytest.approx([100 * n / total for n in (fifths, octaves, crossings)])
    assert min(found.values()) > 0


class Plays:
    """Generates given pieces."""

    abilities = {"generate": ""}  # noqa: RUF012

    def __init__(self, pieces, spec):
        self.pieces, self.spec = pieces, spec

    def generate(self, prompts, *, max_new_tokens, seed):
        return [SimpleNamespace(tokens=to_tokens(piece).tolist()) for piece in self.pieces[: len(prompts)]]


def test_the_suite_reads_tokens_and_real_pieces():
    data: Any = zoo.create_data("synthetic_chorales", steps=8, beats=16)
    data.setup()
    real, suite = data.pieces[2], VoiceLeadingSuite()
    assert isinstance(data.spec.x, Voices)
    wrong = [shuffled_voices(piece, make_generator(i)) for i, piece in enumerate(real)]
    scores = []
    for pieces in (real, wrong):
        model: Any = Plays(pieces, data.spec)
        assert suite.applies(model, data)
        found = suite.measure(EvaluationContext(model, data, EvaluationConfig()))
        assert list(found) == [f"{name}@64_test" for name in ("parallel_fifths", "parallel_octaves", "voice_crossings")]
        scores.append({name.partition("@")[0]: score.value for name, score in found.items()})
    same = voice_leading(real[:64])
    assert scores[0] == pytest.approx(same)
    references = [metric.real_data_reference for metric in found.values()]
    assert references == pytest.approx(list(voice_leading(real).values()))
    assert scores[1]["voice_crossings"] > scores[0]["voice_crossings"] + 50, "negative control: shuffled voices"


@pytest.mark.skipif("ZOO_DATA" not in os.environ, reason="needs the chorales in $ZOO_DATA")
def test_real_chorales_break_few_rules():
    if not (Path(os.environ["ZOO_DATA"]) / "jsb-chorales-16th.json").is_file():
        pytest.skip("needs jsb-chorales-16th.json")
    data: Any = zoo.create_data("chorales")
    data.setup()
    real = data.pieces[2]
    found = voice_leading(real)
    shuffled = voice_leading(shuffled_voices(piece, make_generator(i)) for i, piece in enumerate(real))
    later = voice_leading(torch.cat([piece[:-4, :1], piece[4:, 1:]], 1) for piece in real)  # the soprano a beat early
    assert list(found.values()) == pytest.approx([0.184, 0.085, 2.462], abs=1e-3)  # of the documentation
    assert list(shuffled.values()) == pytest.approx([2.52, 1.12, 148.2], abs=0.1)
    assert list(later.values()) == pytest.approx([5.27, 2.04, 3.42], abs=0.01)
