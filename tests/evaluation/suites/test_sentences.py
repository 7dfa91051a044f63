"""Retrieval of partners by known vectors, and the baseline against its formula."""

import math
from types import SimpleNamespace

import pytest
import torch

import zoo
from zoo.core.spaces import Pair, Tokens
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.sentences import SentenceSuite, partners, passages, tfidf_similarities
from zoo.metrics.ranking import rank_of

PAIRS = [(f"{i} left", f"right {i}") for i in range(40)]


class Numbers:
    """Embeds a text by the number in it, on a circle; `wrong` moves the second texts on by one."""

    device = torch.device("cpu")

    def __init__(self, wrong: bool = False) -> None:
        self.wrong = wrong

    def embed(self, texts: list[str]) -> torch.Tensor:
        numbers = [next(int(w) for w in text.split() if w.isdigit()) for text in texts]
        moved = [n + (self.wrong and text.startswith("right")) for n, text in zip(numbers, texts, strict=True)]
        angle = torch.tensor(moved) * 2 * math.pi / 40
        return torch.stack([angle.cos(), angle.sin(), torch.full((len(texts),), 2.0)], 1)


def measured(model) -> dict[str, float]:
    space = Pair(Tokens(8, 50), Tokens(8, 50))
    data = SimpleNamespace(
        spec=zoo.DataSpec(space), pairs=lambda split: PAIRS, variant="", test=(torch.zeros(40), torch.zeros(40))
    )
    found = SentenceSuite().measure(EvaluationContext(model, data, EvaluationConfig()))
    assert all(name.endswith("@40_test") for name in found)
    return {name.partition("@")[0]: metric.value for name, metric in found.items()}


def test_known_vectors_find_their_partners_and_moved_ones_do_not() -> None:
    right, wrong = measured(Numbers()), measured(Numbers(wrong=True))
    assert right["partner_recall1"] == right["partner_mrr"] == right["partner_recall1_centred"] == 1
    assert right["alignment"] == pytest.approx(0, abs=1e-6)
    assert wrong["partner_recall1"] == wrong["partner_recall1_centred"] == 0
    # The right one is second or third: both neighbours have the same distance up to rounding.
    assert 1 / 3 - 1e-6 <= wrong["partner_mrr"] <= 1 / 2
    assert wrong["alignment"] == pytest.approx((2 - 2 * math.cos(2 * math.pi / 40)) / 5, rel=1e-3)
    assert right["partner_recall1_tfidf_words"] == wrong["partner_recall1_tfidf_words"]
    assert right["partner_recall1_tfidf_words"] == pytest.approx(30 / 40), "words of one letter are not counted"


def test_the_place_of_the_right_item_counts_ties_against_it() -> None:
    scores = torch.tensor([[3.0, 1, 2], [0, 0, 0], [1, 2, 2]])
    assert rank_of(scores, torch.tensor([0, 1, 2])).tolist() == [1, 3, 2]
    assert rank_of(scores, torch.tensor([1, 0, 0])).tolist() == [3, 3, 3]


def test_the_baseline_is_its_formula() -> None:
    training, texts = ["aa bb", "aa cc", "aa bb dd"], ["aa bb", "cc cc", "bb aa", "cc aa"]
    idf = {w: math.log(4 / (1 + n)) + 1 for w, n in {"aa": 3, "bb": 2, "cc": 1, "dd": 1}.items()}

    def vector(text: str) -> torch.Tensor:
        raw = torch.tensor([text.split().count(w) * idf[w] for w in idf], dtype=torch.float64)
        return raw / raw.norm()

    wanted = torch.stack([torch.stack([vector(a) @ vector(b) for b in texts[2:]]) for a in texts[:2]])
    torch.testing.assert_close(tfidf_similarities(training, texts, {}), wanted)


def test_passages_are_adjacent_and_halved() -> None:
    words = [f"w{i}" for i in range(75)]
    found = passages(words)
    assert [len(a.split()) + len(b.split()) for a, b in found] == [32, 32, 11]
    assert " ".join(" ".join(pair) for pair in found).split() == words
    assert passages(words[:7]) == []
    data = SimpleNamespace(spec=zoo.DataSpec(Tokens(8, 50)), iterate_texts=lambda split: [" ".join(words)] * 2000)
    assert len(partners(data, "test")) == 1000


def test_it_applies_to_models_of_texts_alone(tmp_path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(f"a line of {i % 7} and {i % 11} words that go on" for i in range(200)))
    data = zoo.create_data("text", path=str(path), lines=True, context=16, tokenizer="word_level", batch_size=32)
    data.setup()
    suite = SentenceSuite()
    small = {"backbone": {"d_model": 16, "n_layers": 1}}
    for name, settings in (("elmo", small), ("bert", small), ("simcse", {})):
        model = zoo.create_model(name, data=data, **settings).eval()
        assert suite.applies(model, data)
        with torch.no_grad():
            found = suite.measure(EvaluationContext(model, data, EvaluationConfig()))
        assert all(math.isfinite(metric.value) for metric in found.values())
        assert len(found) == 10
    assert not suite.applies(zoo.create_model("word2vec", data=data), data)
    assert not suite.applies(zoo.create_model("lstm", data=data), data)
