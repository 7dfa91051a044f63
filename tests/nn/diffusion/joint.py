"""Joint distributions of a few tokens, small enough to enumerate."""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

VOCAB, LENGTH = 3, 3
MASK = VOCAB
STATES = torch.tensor(list(itertools.product(range(VOCAB), repeat=LENGTH)))  # (S, L)
MASKED_STATES = torch.tensor(list(itertools.product(range(VOCAB + 1), repeat=LENGTH)))
Predict = Callable[[Tensor], Tensor]  # tokens with masks (B, L) -> log-probabilities (B, L, V)


def random_joint(seed: int = 0) -> Tensor:
    """Probabilities of all states (S,), far from a product."""
    return torch.randn(len(STATES), generator=torch.Generator().manual_seed(seed)).double().mul(1.5).softmax(0)


def conditionals(joint: Tensor) -> Predict:
    """The exact denoiser: log p(x_i | the tokens that are not masked)."""

    def predict(tokens: Tensor) -> Tensor:
        fits = ((tokens[:, None] == STATES) | (tokens[:, None] == MASK)).all(2)  # (B, S)
        weight = fits * joint
        onehot = torch.nn.functional.one_hot(STATES, VOCAB).double()  # (S, L, V)
        return (torch.einsum("bs,slv->blv", weight, onehot) / weight.sum(1)[:, None, None]).log()

    return predict


def random_network(seed: int = 1) -> Predict:
    """Arbitrary probabilities for each masked state: those of an untrained network, consistent with no joint."""
    table = torch.randn(len(MASKED_STATES), LENGTH, VOCAB, generator=torch.Generator().manual_seed(seed)).double()
    place = (VOCAB + 1) ** torch.arange(LENGTH - 1, -1, -1)
    return lambda tokens: table[(tokens * place).sum(1)].log_softmax(-1)


def subsets() -> Iterator[Tensor]:
    """All non-empty sets of hidden positions, bool (L,)."""
    for bits in itertools.product([False, True], repeat=LENGTH):
        if any(bits):
            yield torch.tensor(bits)


def cross_entropies(predict: Predict, x: Tensor, hidden: Tensor) -> Tensor:
    """-log p of the hidden tokens of x (B, L), by position, 0 elsewhere; `hidden` is (L,) or (B, L)."""
    log_p = predict(x.masked_fill(hidden, MASK))
    return -log_p.gather(2, x[..., None]).squeeze(2).masked_fill(~hidden.expand_as(x), 0)


def chain_rule(predict: Predict, x: Tensor, order: tuple[int, ...]) -> Tensor:
    """-log p of x (B, L), one token after another in this order, nats (B,)."""
    total, hidden = torch.zeros(len(x), dtype=torch.float64), torch.ones(LENGTH, dtype=torch.bool)
    for place in order:
        total = total + cross_entropies(predict, x, hidden)[:, place]
        hidden = hidden.clone()
        hidden[place] = False
    return total


def chi_square(tokens: Tensor, law: Tensor) -> float:
    """Pearson's statistic of sampled tokens (N, L) against the law of all states (S,), which is positive."""
    place = VOCAB ** torch.arange(LENGTH - 1, -1, -1)
    counts = torch.bincount((tokens * place).sum(1), minlength=len(STATES))
    expected = law * len(tokens)
    return float(((counts - expected).square() / expected).sum())


CRITICAL = 66.0  # of chi-square with 26 degrees of freedom: p = 2e-5
