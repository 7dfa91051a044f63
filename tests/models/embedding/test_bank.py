"""The two meanings of "bank": one vector of word2vec, two of BERT."""

import torch

import zoo
from zoo.core.spaces import Tokens
from zoo.data.batch import Batch
from zoo.data.loader import make_generator

BANK, RIVER, MONEY = 0, (1, 8), (8, 15)  # the word, and ids of words that occur in each meaning


def sentences(words: tuple[int, int], n: int, seed: int) -> torch.Tensor:
    """Three words of a meaning before "bank", and three after it, (n, 7)."""
    x = torch.randint(*words, (n, 7), generator=make_generator(seed))
    x[:, 3] = BANK
    return x


def explained(vectors: torch.Tensor, meaning: torch.Tensor) -> float:
    """Share of the variance of vectors (N, D) that lies between the means of two meanings, bool (N,)."""
    means = torch.stack([vectors[meaning == m].mean(0) for m in (False, True)])[meaning.long()]
    return float((means - vectors.mean(0)).square().sum() / (vectors - vectors.mean(0)).square().sum())


def test_bank_has_one_vector_or_two() -> None:
    torch.manual_seed(0)
    spec = zoo.DataSpec(Tokens(7, 16))
    held_out = torch.cat([sentences(RIVER, 20, 1), sentences(MONEY, 20, 2)])
    bert = zoo.create_model("bert", data=spec, backbone={"d_model": 32, "n_layers": 2, "n_heads": 2}).train()

    def bank() -> torch.Tensor:
        """Features of "bank" in each sentence (40, D)."""
        with torch.no_grad():
            return bert.eval().net.features(held_out)[:, 3]

    meaning = torch.arange(40) < 20
    untrained = explained(bank(), meaning)
    optimizer = torch.optim.Adam(bert.train().parameters(), 3e-3)
    for step in range(200):
        x = torch.cat([sentences(RIVER, 16, 10 + 2 * step), sentences(MONEY, 16, 11 + 2 * step)])
        optimizer.zero_grad()
        bert.loss(Batch(x, x))["loss"].backward()
        optimizer.step()
    assert explained(bank(), meaning) > 0.6 > untrained
    assert explained(bank(), torch.arange(40) % 2 == 0) < 0.2, "the meaning, not any division"
    words = zoo.create_model("word2vec", data=spec, dim=8)
    same = words.vectors()[held_out[:, 3]].detach()
    assert torch.equal(same, same[:1].expand_as(same))
