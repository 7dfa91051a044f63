"""The Gaussian copula against closed forms of normal distributions."""

import math

import pytest
import torch
from scipy.stats import multivariate_normal
from torch.distributions import Normal

import zoo
from tests.data.table.examples import SPEC, rows
from zoo.core.columns import Column, write_columns
from zoo.core.errors import DataError
from zoo.core.spaces import Table
from zoo.models.baselines.gaussian_copula import GaussianCopula
from zoo.nn.blocks.table_codec import TableCodec
from zoo.nn.losses.importance_weighted import log_mean_exp

LINE = {"low": -9.0, "high": 9.0, "knots": (0.0, 1.0), "scores": (-9.0, 9.0)}  # scores are the numbers
REAL = tuple(Column(name, "number", **LINE) for name in "abc")
CUT = (Column("u", "category", ("no", "yes")), Column("v", "category", ("low", "middle", "high")))
CORRELATION = torch.tensor([[1.0, 0.8, -0.3], [0.8, 1.0, 0.1], [-0.3, 0.1, 1.0]], dtype=torch.float64)


def model(columns: tuple[Column, ...], **settings: int) -> GaussianCopula:
    return GaussianCopula(zoo.DataSpec(Table(write_columns(columns)), name="rows"), **settings)


def normals(n: int) -> torch.Tensor:
    noise = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return noise @ torch.linalg.cholesky(CORRELATION).T


def test_real_numbers_have_the_density_and_correlation_of_a_normal_distribution() -> None:
    copula, z = model(REAL, sweeps=1), normals(20_000)
    x = TableCodec(copula.spec.x).encode(z)
    copula.fit(x)
    torch.testing.assert_close(copula.correlation, torch.corrcoef(z.T), atol=2e-2, rtol=0)
    copula.correlation.copy_(CORRELATION)
    (found,) = copula.likelihoods(x[:50])
    want = multivariate_normal(cov=CORRELATION.numpy()).logpdf(z[:50].numpy())
    torch.testing.assert_close(found.value, torch.tensor(want).float(), atol=1e-4, rtol=1e-4)
    drawn = TableCodec(copula.spec.x).decode(copula.sample(20_000, seed=1))
    torch.testing.assert_close(torch.corrcoef(drawn.T), CORRELATION, atol=3e-2, rtol=0)


def test_correlation_behind_categories_is_recovered() -> None:
    """Of normal scores cut into two and three categories. Scores at random in their intervals, the control, are not."""
    copula, z = model((REAL[0], *CUT), sweeps=30), normals(6_000)
    cells = torch.stack([z[:, 0], (z[:, 1] > 0.3).double(), (z[:, 2] > -1).double() + (z[:, 2] > 0.5)], 1)
    x = TableCodec(copula.spec.x).encode(cells)
    copula.fit(x)
    assert (copula.correlation - CORRELATION).abs().max() < 0.06
    lower, upper = copula.intervals(x)
    below, above = (torch.special.ndtr(part) for part in (lower, upper))
    at_random = torch.special.ndtri(below + (above - below) * torch.rand(below.shape, dtype=torch.float64))
    at_random = torch.where(lower == upper, lower, at_random)
    assert (torch.corrcoef(at_random.T) - CORRELATION).abs().max() > 0.15


def test_probabilities_of_categories_are_those_of_rectangles() -> None:
    copula = model(CUT)
    copula.borders[0, :2] = torch.tensor([-torch.inf, 0.3], dtype=torch.float64)
    copula.borders[1, :3] = torch.tensor([-torch.inf, -1.0, 0.5], dtype=torch.float64)
    copula.correlation.copy_(torch.tensor([[1, 0.6], [0.6, 1]], dtype=torch.float64))
    cells = torch.cartesian_prod(torch.arange(2.0), torch.arange(3.0)).double()
    x = TableCodec(copula.spec.x).encode(cells)
    found = log_mean_exp(copula.log_weights(x, 2_000)).exp()
    joint = multivariate_normal(cov=[[1, 0.6], [0.6, 1]])
    u, v = [-30, 0.3, 30], [-30, -1, 0.5, 30]
    want = [joint.cdf([u[i + 1], v[j + 1]], lower_limit=[u[i], v[j]]) for i, j in cells.long().tolist()]
    torch.testing.assert_close(found, torch.tensor(want, dtype=torch.float64), atol=5e-3, rtol=0)
    assert found.sum().item() == pytest.approx(1, abs=5e-3)
    drawn = TableCodec(copula.spec.x).decode(copula.sample(20_000, seed=0))
    shares = torch.stack([(drawn == row).all(1).double().mean() for row in cells])
    torch.testing.assert_close(shares, torch.tensor(want, dtype=torch.float64), atol=0.012, rtol=0)
    alone = Normal(0.0, 1.0).cdf(torch.tensor(-1.0)).item() * (1 - Normal(0.0, 1.0).cdf(torch.tensor(0.3)).item())
    assert abs(alone - want[3]) > 0.03, "independent columns would be found"


def test_a_bound_grows_with_the_number_of_samples() -> None:
    copula = model((REAL[0], *CUT))
    copula.correlation.copy_(CORRELATION)
    cells = torch.tensor([[2.0, 0, 2], [-1.5, 1, 0]], dtype=torch.float64)
    x = TableCodec(copula.spec.x).encode(cells)
    few = torch.stack([log_mean_exp(copula.log_weights(x, 1)) for _ in range(300)]).mean(0)
    many = log_mean_exp(copula.log_weights(x, 3_000))
    assert (few < many).all()


def test_columns_are_filled_in_from_their_conditional_distribution() -> None:
    copula = model(REAL)
    copula.correlation.copy_(CORRELATION)
    x = TableCodec(copula.spec.x).encode(torch.tensor([[1.5, 0.0, -1.0]], dtype=torch.float64)).repeat(4_000, 1)
    mask = torch.tensor([[False, True, False]])
    found = TableCodec(copula.spec.x).decode(copula.inpaint(x, mask, seed=0))
    assert torch.equal(found[:, [0, 2]], TableCodec(copula.spec.x).decode(x)[:, [0, 2]])
    given = CORRELATION[[0, 2]][:, [0, 2]]
    weights = torch.linalg.solve(given, CORRELATION[[0, 2], 1])
    mean = (weights @ torch.tensor([1.5, -1.0], dtype=torch.float64)).item()
    std = math.sqrt(1 - (weights @ CORRELATION[[0, 2], 1]).item())
    assert found[:, 1].mean().item() == pytest.approx(mean, abs=4 * std / math.sqrt(4_000))
    assert found[:, 1].std().item() == pytest.approx(std, rel=0.05)
    assert abs(mean) > 0.9, "the marginal has mean zero"


def test_given_cells_are_kept_and_mistakes_are_named() -> None:
    copula = GaussianCopula(SPEC)
    copula.fit(rows(300))
    drawn = TableCodec(SPEC.x).decode(copula.sample(40, seed=0, where="colour=red, size=NA"))
    assert (drawn[:, 0] == 1).all()
    assert drawn[:, 2].isnan().all()
    assert len(set(drawn[:, 1].tolist())) > 1
    for where, told in (
        ("colour", "Write COLUMN=VALUE"),
        ("color=red", "did you mean"),
        ("colour=rad", "category of colour"),
        ("count=9", "outside the range"),
        ("count=?", "no value of column count is missing"),
    ):
        with pytest.raises(DataError, match=told):
            copula.sample(2, where=where)
