"""Contrastive losses against brute force, and InfoNCE as a bound on a known mutual information."""

import math

import pytest
import torch
from torch.nn import functional as F

from zoo.data.loader import make_generator
from zoo.nn.losses.contrastive import infonce, nt_xent, sigmoid_loss, symmetric_infonce


def scores(n: int = 5) -> torch.Tensor:
    return 2 * torch.randn(n, n, generator=make_generator(0), dtype=torch.float64)


def equal_pairs() -> torch.Tensor:
    """Rows 0 and 3 have the same caption."""
    equal = torch.eye(5, dtype=torch.bool)
    equal[0, 3] = equal[3, 0] = True
    return equal


@pytest.mark.parametrize("equal", [None, equal_pairs()])
def test_infonce_is_the_cross_entropy_of_each_row(equal: torch.Tensor | None) -> None:
    logits = scores()
    wanted = []
    for i in range(5):
        candidates = [j for j in range(5) if j == i or equal is None or not equal[i, j]]
        total = sum(math.exp(logits[i, j]) for j in candidates)
        wanted.append(-math.log(math.exp(logits[i, i]) / total))
    torch.testing.assert_close(infonce(logits, equal), torch.tensor(wanted, dtype=torch.float64))
    both = symmetric_infonce(logits, equal)
    torch.testing.assert_close(both, (infonce(logits, equal).mean() + infonce(logits.T, equal).mean()) / 2)
    torch.testing.assert_close(both, symmetric_infonce(logits.T, equal))
    order = torch.tensor([3, 1, 4, 0, 2])
    moved = None if equal is None else equal[order][:, order]
    torch.testing.assert_close(both, symmetric_infonce(logits[order][:, order], moved))
    assert float(symmetric_infonce(logits[order], equal)) != pytest.approx(float(both)), "the pairs matter"


@pytest.mark.parametrize("equal", [None, equal_pairs()])
def test_the_sigmoid_loss_and_its_gradient_by_hand(equal: torch.Tensor | None) -> None:
    logits = scores().requires_grad_()
    loss = sigmoid_loss(logits, equal)
    wanted, slope = 0.0, torch.zeros(5, 5, dtype=torch.float64)
    for i in range(5):
        for j in range(5):
            if i != j and equal is not None and equal[i, j]:
                continue
            sign = 1 if i == j else -1
            score = sign * logits[i, j].item()
            wanted -= math.log(1 / (1 + math.exp(-score))) / 5
            slope[i, j] = -sign / (1 + math.exp(score)) / 5
    assert float(loss) == pytest.approx(wanted)
    loss.backward()
    torch.testing.assert_close(logits.grad, slope)


def test_nt_xent_by_brute_force() -> None:
    first, second = (torch.randn(4, 3, generator=make_generator(seed), dtype=torch.float64) for seed in (1, 2))
    z, wanted = torch.cat([first, second]), []
    for i in range(8):
        cosines = [float(F.cosine_similarity(z[i], z[j], dim=0)) / 0.5 for j in range(8)]
        partner = (i + 4) % 8
        total = sum(math.exp(c) for j, c in enumerate(cosines) if j != i)
        wanted.append(-math.log(math.exp(cosines[partner]) / total))
    assert float(nt_xent(first, second, 0.5)) == pytest.approx(sum(wanted) / 8)
    assert float(nt_xent(first, second.roll(1, 0), 0.5)) != pytest.approx(sum(wanted) / 8)
    order = torch.tensor([2, 0, 3, 1])
    assert float(nt_xent(second[order], first[order], 0.5)) == pytest.approx(sum(wanted) / 8), "no order matters"
    assert float(nt_xent(first, first, 0.01)) < 1e-6, "equal views are found"


def bound(rho: float, n: int, critic: float, batches: int = 200, paired: bool = True) -> tuple[float, float]:
    """log B - InfoNCE for normal pairs of correlation rho, with the log-density ratio of correlation `critic`."""
    found = []
    for batch in range(batches):
        x, noise = torch.randn(2, n, generator=make_generator(7, batch), dtype=torch.float64)
        y = rho * x + math.sqrt(1 - rho**2) * noise
        y = y if paired else y.roll(1)
        spread = 1 - critic**2
        logits = -((y[None] - critic * x[:, None]) ** 2) / (2 * spread) + y[None] ** 2 / 2 - math.log(spread) / 2
        found.append(math.log(n) - float(infonce(logits).mean()))
    values = torch.tensor(found)
    return float(values.mean()), float(values.std()) / math.sqrt(batches)


@pytest.mark.parametrize("rho", [0.5, 0.9, 0.999])
def test_infonce_bounds_the_mutual_information_of_a_gaussian_pair(rho: float) -> None:
    """The mutual information is -log(1 - rho^2) / 2. The optimal critic comes near for many candidates."""
    information = -math.log(1 - rho**2) / 2
    before = -1.0
    for n in (2, 8, 128):
        value, error = bound(rho, n, rho)
        assert value < information + 3 * error
        assert value <= math.log(n)
        assert value > before - 3 * error, "more candidates do not loosen it"
        before = value
    if information < math.log(128) / 2:
        assert before == pytest.approx(information, abs=0.05)
    worse, error = bound(rho, 128, 0.3 * rho)
    assert worse < before - 3 * error, "another critic has a lower bound"
    apart, error = bound(rho, 128, rho, paired=False)
    assert apart < 3 * error, "shuffled pairs share no information"


def test_without_the_partner_among_the_candidates_it_is_not_a_bound() -> None:
    """Negative control: the denominator must contain the right answer."""
    x = torch.randn(2, generator=make_generator(0), dtype=torch.float64)
    logits = -((x[None] - x[:, None]) ** 2) / (2 * 1e-4)
    own = torch.eye(2, dtype=torch.bool)
    broken = logits.masked_fill(own, -torch.inf).logsumexp(1) - logits.diagonal()
    assert math.log(2) - float(broken.mean()) > math.log(2)
    assert math.log(2) - float(infonce(logits).mean()) <= math.log(2)
