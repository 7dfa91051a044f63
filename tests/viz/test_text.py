"""Views of text: pictures of attention, and tables of token losses."""

import pytest
import torch

import zoo
from zoo.data.batch import Batch
from zoo.data.text.paired import Pairs
from zoo.data.text.plain import Text
from zoo.viz.images import BACKGROUND, HEADER, MARGIN
from zoo.viz.render import render_samples
from zoo.viz.text import CELL, TOKENS, ReadingView, alignment_picture, attention_picture, to_ascii


@pytest.fixture
def data(tmp_path):
    (tmp_path / "a.txt").write_text("the cat | sat on\nthe `mat`\n" * 200)
    data = Text(path=str(tmp_path), context=80, tokenizer="char")
    data.setup()
    return data


@pytest.mark.parametrize("name", ["gpt", "bert", "ngram"])
def test_models_show_what_they_can(name, data):
    torch.manual_seed(0)
    model = zoo.create_model(name, data=data.spec).eval()
    assert ReadingView().applies(model, data)
    with torch.no_grad():
        shown = ReadingView().show(model, data)
    assert set(shown) == {"gpt": {"attention", "token_loss"}, "bert": {"attention"}, "ngram": {"token_loss"}}[name]
    if name != "ngram":
        picture = shown["attention"]
        assert picture.ndim == 3
        assert picture.shape[0] > 4 * 128  # four layers below one another
    if name != "bert":
        rows = shown["token_loss"].splitlines()
        assert len(rows) == 2 + TOKENS
        x, y = data.fetch(data.val, torch.arange(1), torch.Generator(), train=False)
        with torch.no_grad():
            nats = model.token_nll(Batch(x[:, :TOKENS], y[:, :TOKENS]))[0][0]
        assert [float(row.split(" | ")[-2]) for row in rows[2:]] == pytest.approx(nats.tolist(), abs=0.0051)
        assert all(row.count("|") - row.count("\\|") == 4 for row in rows[2:])  # a bar in the text is not a column


def test_bright_is_where_a_position_looks():
    weights = torch.zeros(2, 5, 5)
    weights[0, 3, 1] = 1.0
    picture = attention_picture([weights], ["layer 1"])
    assert (picture[:, :MARGIN] != BACKGROUND).any(), "the layer is named on the left"
    assert (picture[:HEADER] != BACKGROUND).any(), "the heads are named above"
    row, column = (int(i[0]) for i in (picture[HEADER:, MARGIN:] == 255).nonzero()[:2])
    cell = 128 // 5 + (128 % 5 > 0)
    assert ((row - 4) // cell, (column - 4) // cell) == (3, 1)


def test_an_alignment_is_bright_where_a_target_looks_at_a_source():
    weights = torch.zeros(2, 3)
    weights[1, 2] = 1.0
    picture = alignment_picture(weights, ["Bar", " b", "(end)"], ["x", "(end)"])
    wide, high = picture.shape[1] - 3 * CELL, picture.shape[0] - 2 * CELL
    bright = (picture[high:, wide:] == 255).all(2).nonzero()
    assert {(int(r) // CELL, int(c) // CELL) for r, c in zip(*bright, strict=True)} == {(1, 2)}
    assert (picture[:high, wide:] != 128).any(), "the source is written above"
    assert (picture[high:, :wide] != 128).any(), "the target is written on the left"
    assert to_ascii("größer") == "gro?er"


def test_pairs_show_how_the_target_looks_back(tmp_path):
    (tmp_path / "a.tsv").write_text("ein Hund\ta dog\nein Mann\ta man\nein Ball\ta ball\n" * 14)
    data = Pairs(path=str(tmp_path / "a.tsv"), tokenizer="char", batch_size=4)
    data.setup()
    shown = render_samples(zoo.create_model("seq2seq", data=data.spec, backbone={"d_model": 16}), data)
    assert set(shown) == {"samples", "attention", "alignment", "token_loss"}
    assert shown["samples"].startswith("source  ein ")
