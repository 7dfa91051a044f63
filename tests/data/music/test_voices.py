"""Windows of music: every note is scored once, nothing else is, and transposition is exact."""

import json
import math

import pytest
import torch

import zoo
from zoo.core.errors import DataError
from zoo.data.loader import make_generator
from zoo.data.music.note import KEYS, REST, SIZE, to_frames, to_tokens
from zoo.data.music.voices import MARKED, VoiceData, room, voice_ranges


class Pieces(VoiceData):
    """Two training pieces, one for validation with a marked step, one for testing."""

    registered_name = "pieces"

    def __init__(self, steps=8, transpose=3):
        super().__init__(steps, transpose, 2, 4, 60, 2, 0)

    def read(self):
        train = [torch.tensor([[70 + i % 5, 50 + i % 7] for i in range(n)]) for n in (20, 8)]
        val = train[0][:12].clone()
        val[5] = MARKED
        val[6, 0] = REST
        return train, [val], [train[1] + 1]


def fetch(data, name, *, train=False, seed=0):
    split = getattr(data, name)
    return data.fetch(split, torch.arange(len(split[0])), make_generator(seed), train=train)


def test_held_out_notes_are_scored_once_and_nothing_else():
    data = Pieces()
    data.setup()
    x, y = fetch(data, "val")
    piece = data.pieces[1][0]
    tokens = to_tokens(piece.clamp(min=REST))
    real = (piece != MARKED).all(1).repeat_interleave(2)
    assert torch.equal(y[y >= 0], tokens[real]), "a rest of one voice is scored, a marked step is not"
    assert int(x[0, 0]) == data.tokenizer.end
    assert int(x[1, 0]) == int(tokens[15]), "a later window begins after the last note of the one before"
    assert torch.equal(x[0, 1:], tokens[:15])
    assert (y[1, 8:] == -100).all(), "padding"


def test_training_covers_the_ends_and_scores_them():
    data, first, last, covered = Pieces(transpose=0), set(), set(), set()
    data.setup()
    end = data.tokenizer.end
    for seed in range(5):
        x, y = fetch(data, "train", train=True, seed=seed)
        first.add(int((x[:, 0] == end).sum()))
        last.add(int((y == end).sum()))
        long = data.train[0][:, 1] - data.train[0][:, 0] > 16 + 1
        frames = [to_frames(row, 2) for row in y[long]]
        starts = [int((data.pieces[0][0] == f[0]).all(1).nonzero()) for f in frames]
        assert all(start % 4 == 0 for start in starts), "windows begin on a beat"
        for start, f in zip(starts, frames, strict=True):
            assert torch.equal(f, data.pieces[0][0][start : start + 8])
        covered |= {start + i for start, f in zip(starts, frames, strict=True) for i in range(len(f))}
        assert 0 in starts
        assert any(start + len(f) == 20 for start, f in zip(starts, frames, strict=True))
    assert covered == set(range(20))
    assert min(first) >= 2
    assert min(last) >= 2


def test_transposition_moves_every_voice_and_stays_in_range():
    data = Pieces()
    data.setup()
    lows, highs = voice_ranges(data.pieces[0])
    piece = torch.tensor([[71, 51], [REST, 52]])
    assert room(piece, lows, highs, 12) == (-1, 3)
    assert room(piece, lows, highs, 2) == (-1, 2)
    assert room(torch.full((2, 2), REST), lows, highs, 2) == (0, 0)
    rows, stream = data.train
    moved = rows.clone()
    moved[:, 3], moved[:, 4] = -2, -2  # down by two, always
    plain, down = (
        data.fetch((r, stream), torch.arange(len(rows)), make_generator(0), train=True) for r in (rows, moved)
    )
    assert (rows[:, 3:] == 0).all(), "these pieces fill the ranges"
    for before, after in zip(plain, down, strict=True):
        note = (before >= 0) & (before < data.tokenizer.end) & (before % SIZE < KEYS)
        assert torch.equal(torch.where(note, before - 2, before), after), "neither rests, ends nor padding move"
    held = [data.fetch((r, stream), torch.arange(len(rows)), make_generator(0), train=False)[0] for r in (rows, moved)]
    assert torch.equal(*held), "held-out pieces are not transposed"


def test_steps_must_be_whole_beats():
    with pytest.raises(DataError, match="multiple of 4"):
        Pieces(steps=6)


def test_chorales_read_marks_and_refuse(tmp_path):
    step = [74, 70, 65.0, 58]
    piece = [step] * 4 + [[]] + [[74, 70, math.nan, 58]] + [step] * 2
    content = {"train": [piece] * 8, "valid": [piece], "test": [piece]}
    (tmp_path / "jsb-chorales-16th.json").write_text(json.dumps(content))
    data = zoo.create_data("chorales", path=str(tmp_path), steps=8, batch_size=2)
    data.setup()
    assert (data.pieces[1][0] == MARKED).all(1).tolist() == [False] * 4 + [True] * 2 + [False] * 2
    assert sum(int((y >= 0).sum()) for _, y in data.test_dataloader()) == 24
    for bad in ("{", "[]", '{"train": 3}', '{"train": [["x"]], "valid": [], "test": []}'):
        (tmp_path / "jsb-chorales-16th.json").write_text(bad)
        with pytest.raises(DataError, match="not chorales"):
            zoo.create_data("chorales", path=str(tmp_path)).setup()
    with pytest.raises(DataError, match="synthetic_chorales"):
        zoo.create_data("chorales", path=str(tmp_path / "none")).setup()
