"""What is shown of how a text is read: a picture of attention, and a table of costs."""

import pytest
import torch

import zoo
from zoo.callbacks.reading import TOKENS, attention_picture, reading
from zoo.data.text import Text


@pytest.fixture
def data(tmp_path):
    (tmp_path / "a.txt").write_text("the cat | sat on\nthe `mat`\n" * 200)
    data = Text(root=str(tmp_path), context=80, tokenizer="char")
    data.setup()
    return data


@pytest.mark.parametrize("name", ["gpt", "bert", "ngram"])
def test_models_show_what_they_can(name, data):
    torch.manual_seed(0)
    model = zoo.create_model(name, data=data.spec).eval()
    shown = reading(model, data)
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
            nats = model.nats((x[:, :TOKENS], y[:, :TOKENS]))[0][0]
        assert [float(row.split(" | ")[-2]) for row in rows[2:]] == pytest.approx(nats.tolist(), abs=0.0051)
        assert all(row.count("|") - row.count("\\|") == 4 for row in rows[2:])  # a bar in the text is no column


def test_bright_is_where_a_position_looks():
    weights = torch.zeros(2, 5, 5)
    weights[0, 3, 1] = 1.0
    picture = attention_picture([weights])
    row, column = (int(i[0]) for i in (picture == 255).nonzero()[:2])
    cell = 128 // 5 + (128 % 5 > 0)
    assert ((row - 4) // cell, (column - 4) // cell) == (3, 1)
