"""Energy-based models against Gaussians, whose score, chains and optimum are closed forms."""

import math

import pytest
import torch
from torch import nn

import zoo
from zoo.core.spaces import Vector
from zoo.data.batch import Batch
from zoo.models.energy.energy import SCORE_NOISE, EnergyModel

COVARIANCE = torch.tensor([[0.8, 0.4], [0.4, 0.5]], dtype=torch.float64)
REFERENCE = torch.eye(2).double() / 4  # precision of N(0, 2^2)


class Quadratic(nn.Module):
    """f(x) = x' A x / 2 + c."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix, self.constant = nn.Parameter(matrix.clone()), nn.Parameter(torch.zeros(()).double())

    def forward(self, x):
        return (0.5 * (x @ self.matrix * x).sum(1) + self.constant)[:, None]


def quadratic(precision, **settings):
    """A model whose energy is x' P x / 2."""
    torch.manual_seed(0)
    model = EnergyModel(zoo.DataSpec(Vector(2)), **settings).double()
    model.encoder = Quadratic(precision - REFERENCE)
    return model


def draw(n, seed=0):
    """Samples of N(0, COVARIANCE)."""
    noise = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return noise @ torch.linalg.cholesky(COVARIANCE).mT


def chain_covariance(precision, h, steps, start):
    """Covariance of the affine recursion x <- (1 - h P / 2) x + sqrt(h) n."""
    contraction = torch.eye(2).double() - h / 2 * precision
    for _ in range(steps):
        start = contraction @ start @ contraction.mT + h * torch.eye(2).double()
    return start


def test_score_and_energy_of_a_gaussian():
    precision = torch.linalg.inv(COVARIANCE)
    model, x = quadratic(precision), draw(5)
    torch.testing.assert_close(model.score(x), -x @ precision)
    normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), COVARIANCE)
    difference = model.energy(x) + normal.log_prob(x)
    torch.testing.assert_close(difference, difference[:1].expand(5))  # up to a constant
    with torch.inference_mode():
        torch.testing.assert_close(model.score(x), -x @ precision)
    wrong = quadratic(precision + REFERENCE)  # without the reference distribution
    assert not torch.allclose(wrong.score(x), -x @ precision, atol=0.01)


@pytest.mark.parametrize("steps", [5, 200])
def test_samples_have_the_covariance_of_the_recursion(steps):
    precision, n = torch.linalg.inv(COVARIANCE), 20_000
    model = quadratic(precision, step_size=0.1).eval()
    found = torch.cov(model.sample(n, seed=0, steps=steps).mT)
    start = 4 * torch.eye(2).double()
    want = chain_covariance(precision, 0.1, steps, start)
    error = 5 * torch.sqrt((want.square() + torch.outer(want.diag(), want.diag())) / n)  # of a sample covariance
    assert ((found - want).abs() < error).all()
    hot = chain_covariance(precision / 2, 0.2, steps, start)  # noise of twice the variance
    assert ((found - hot).abs() > error).any()
    if steps == 200:
        stationary = torch.linalg.inv(precision @ (torch.eye(2).double() - 0.1 / 4 * precision))
        torch.testing.assert_close(want, stationary, rtol=0, atol=1e-6)


def test_score_matching_has_a_closed_form_and_its_minimum_at_the_noisy_data():
    """E|n - sigma P (x + sigma n)|^2 / D = (D - 2 sigma^2 tr P + sigma^2 tr P (C + sigma^2) P) / D."""
    noisy = COVARIANCE + SCORE_NOISE**2 * torch.eye(2).double()
    x = draw(400_000)
    values = {}
    for name, precision in {"optimum": torch.linalg.inv(noisy), "flat": REFERENCE, "clean": 1.5 * noisy}.items():
        cost = 2 - 2 * SCORE_NOISE**2 * precision.trace() + SCORE_NOISE**2 * (precision @ noisy @ precision).trace()
        values[name] = cost.item() / 2
        found = quadratic(precision).score_matching(x).item()
        assert found == pytest.approx(values[name], abs=5 * math.sqrt(1 / len(x)))
    assert values["optimum"] == min(values.values()) < 0.99


def test_training_finds_the_precision_of_a_gaussian():
    """The chains then have the covariance of the data: P (1 - h P / 4) is its inverse, which solves for P."""
    h = 0.1
    model = quadratic(torch.eye(2).double(), step_size=h, k=5, restart=0.0, energy_decay=0.0, n_chains=1000)
    data = draw(1000)
    data = data @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(data.mT, correction=0))).mT
    batch = Batch(data @ torch.linalg.cholesky(COVARIANCE).mT, None)  # with this covariance exactly
    optimizer = torch.optim.Adam([model.encoder.matrix], 0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, 300)
    found = []
    for step in range(350):
        optimizer.zero_grad()
        model.loss(batch)["loss"].backward()
        optimizer.step()
        schedule.step()
        if step >= 250:
            found.append((model.encoder.matrix + model.encoder.matrix.mT).detach() / 2 + REFERENCE)
    values, vectors = torch.linalg.eigh(torch.linalg.inv(COVARIANCE))
    roots = 2 / h * (1 - torch.sqrt(1 - h * values))  # of P - h P^2 / 4 = value
    want = vectors @ roots.diag() @ vectors.mT
    precision = torch.stack(found).mean(0)
    torch.testing.assert_close(precision, want, rtol=0.06, atol=0.06)
    assert (precision - (want - REFERENCE)).abs().max() > 0.2


def test_chains_persist_in_training_only():
    model = quadratic(torch.eye(2).double(), n_chains=64, restart=0.0)
    before = model.chains.clone()
    terms = model.eval().loss(Batch(draw(32), None))
    assert "score_matching" in terms
    assert torch.equal(model.chains, before)
    terms = model.train().loss(Batch(draw(32), None))
    assert "score_matching" not in terms
    moved = (model.chains != before).any(1).sum().item()
    assert 10 < moved <= 32
