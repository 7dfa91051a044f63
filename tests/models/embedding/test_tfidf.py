"""TF-IDF against its formula, and latent semantic analysis against a singular value decomposition."""

import math

import pytest
import torch

import zoo
from zoo.core.spaces import Tokens
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.word_level import WordLevel
from zoo.models.embedding.tfidf import TfIdf

TEXTS = ["the cat sat", "the cat ran and the dog ran", "a dog sat", "the end"]
TOKENIZER = WordLevel(min_count=1).fit(TEXTS)


def windows() -> torch.Tensor:
    """Two windows, with two texts each."""
    ids = [TOKENIZER.encode(text) for text in TEXTS]
    rows = [[*ids[0], TOKENIZER.end, *ids[1]], [TOKENIZER.end, *ids[2], TOKENIZER.end, *ids[3]]]
    return torch.tensor([row + [-100] * (12 - len(row)) for row in rows])


def fitted(**given) -> TfIdf:
    model = TfIdf(zoo.DataSpec(Tokens(12, TOKENIZER.vocab_size, dumps(TOKENIZER))), **given)
    model.fit(windows())
    return model


def by_hand(n: int = 1, idf: bool = True) -> torch.Tensor:
    """Rows of TEXTS, columns in the order of n-grams: tf (ln((1 + N) / (1 + df)) + 1), scaled to length one."""
    bags = [
        [tuple(words[i : i + k]) for k in range(1, n + 1) for i in range(len(words) - k + 1)]
        for words in map(TOKENIZER.encode, TEXTS)
    ]
    grams = sorted({gram for bag in bags for gram in bag})
    table = torch.zeros(len(bags), len(grams), dtype=torch.float64)
    for row, bag in zip(table, bags, strict=True):
        for place, gram in enumerate(grams):
            df = sum(gram in other for other in bags)
            row[place] = bag.count(gram) * (math.log((1 + len(bags)) / (1 + df)) + 1 if idf else 1)
    return table / table.norm(dim=1, keepdim=True)


@pytest.mark.parametrize(("n", "idf"), [(1, True), (2, True), (1, False)])
def test_bags_and_vectors_are_those_of_the_formula(n: int, idf: bool) -> None:
    model, wanted = fitted(dim=2, max_ngram=n, idf=idf), by_hand(n, idf)
    bags = torch.tensor(model.bags([TOKENIZER.encode(text) for text in TEXTS]).toarray())
    torch.testing.assert_close(bags, wanted, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(bags, by_hand(n, not idf), atol=1e-2)
    right = torch.linalg.svd(wanted).Vh[:2]
    exact = wanted @ right.T
    vectors = model.embed(TEXTS).double()
    torch.testing.assert_close(vectors @ vectors.T, exact @ exact.T, rtol=1e-4, atol=1e-5)
    rows = windows()
    loss = model.loss(Batch(rows, torch.zeros(len(rows))))["loss"]
    assert float(loss) == pytest.approx(1 - float(exact.square().sum(1).mean()), abs=1e-5)


def test_a_text_is_near_one_of_the_same_words() -> None:
    model = fitted(dim=4)
    one, same, other = torch.nn.functional.normalize(model.embed(["cat sat", "sat unheard cat", "a dog"]), dim=1)
    assert float(one @ same) == pytest.approx(1, abs=1e-5)
    assert float(one @ other) < 0.9
    assert model.embed("unheard").abs().sum() == 0
