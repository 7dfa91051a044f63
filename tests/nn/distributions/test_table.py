"""Rows have probabilities that sum to one, and samples have these frequencies."""

import itertools
import math

import pytest
import torch

import zoo
from tests.data.table.examples import COLUMNS
from zoo.core.columns import Column, write_columns
from zoo.core.spaces import Table, Vector
from zoo.nn.blocks.table_codec import TableCodec
from zoo.nn.distributions.table import TableLikelihood

COLOUR, COUNT, _, SIZE = COLUMNS
SOME = Column("some", "number", missing=True, high=2.0, step=1.0, knots=(-0.5, 0.5, 2.5), scores=(-1.0, 0.0, 1.0))
DISCRETE = zoo.DataSpec(Table(write_columns((COLOUR, COUNT, SOME))), name="rows")
EVERY = list(itertools.product([0, 1, 2, math.nan], range(5), [0, 1, 2, math.nan]))


def every_row() -> torch.Tensor:
    """All 80 rows of the discrete table."""
    return TableCodec(DISCRETE.x).encode(torch.tensor(EVERY, dtype=torch.float64))


@pytest.mark.parametrize("n_components", [1, 3])
def test_probabilities_of_all_rows_sum_to_one_and_samples_have_them(n_components: int) -> None:
    likelihood = TableLikelihood(DISCRETE, n_components=n_components)
    assert likelihood.kind == "discrete"
    params = torch.randn(1, *likelihood.params_shape)
    rows = every_row()
    p = likelihood.log_prob(params.expand(len(rows), -1), rows).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    n = 40_000
    drawn = likelihood.sample(params.expand(n, -1), torch.Generator().manual_seed(0))
    match = (drawn[:, None] - rows).abs().amax(2) < 1e-3  # (n, 80)
    assert (match.sum(1) == 1).all(), "samples are rows"
    chi = ((match.sum(0) - n * p).square() / (n * p)).sum().item()
    assert chi < 79 + 5 * math.sqrt(2 * 79), "within five standard deviations of a chi-square"
    wrong = p.roll(1)
    assert ((match.sum(0) - n * wrong).square() / (n * wrong)).sum().item() > 1000


def test_a_cell_has_the_mass_between_its_borders() -> None:
    """Of one logistic; scores between knots are linear."""
    likelihood = TableLikelihood(zoo.DataSpec(Table(write_columns((COUNT,)))))
    params = torch.tensor([[0.0, 0.4, 1.0]])
    scale = 6 * math.tanh((1.0 - 0.6) / 6)
    border = TableCodec(Table(write_columns((COUNT,)))).to_scores(torch.arange(0.5, 4)[:, None])[:, 0]
    assert border.tolist() == pytest.approx([-1, 0, 2 / 3, 4 / 3])
    below = ((border - 0.4) / math.exp(scale)).sigmoid()
    want = torch.cat([below, torch.ones(1)]) - torch.cat([torch.zeros(1), below])
    x = TableCodec(Table(write_columns((COUNT,)))).encode(torch.arange(5.0)[:, None])
    torch.testing.assert_close(likelihood.log_prob(params.expand(5, -1), x).exp(), want)


def test_a_density_of_real_numbers_integrates_to_one_in_units_of_the_data() -> None:
    spec = zoo.DataSpec(Table(write_columns((SIZE,))))
    likelihood = TableLikelihood(spec, n_components=2)
    assert likelihood.kind == "continuous"
    wide = torch.linspace(-40, 40, 40_001, dtype=torch.float64)[:, None]
    x = TableCodec(spec.x).double().encode(wide)
    params = torch.randn(1, *likelihood.params_shape).expand(len(x), -1)
    present = params[0, :2].softmax(0)[0].item()
    p = likelihood.log_prob(params, x).exp().sum().item() * 80 / 40_000
    assert p == pytest.approx(present, abs=2e-3)
    gone = TableCodec(spec.x).encode(torch.tensor([[math.nan]], dtype=torch.float64))
    assert likelihood.log_prob(params[:1], gone).exp().item() == pytest.approx(1 - present, abs=1e-6)


def test_a_tiny_cell_keeps_its_digits() -> None:
    """The mass of one of 200,000 cells, against the density times the width."""
    column = Column("n", "number", high=2e5, step=1.0, knots=(-0.5, 2e5 + 0.5), scores=(-3.0, 3.0))
    likelihood = TableLikelihood(zoo.DataSpec(Table(write_columns((column,)))))
    x = TableCodec(Table(write_columns((column,)))).encode(torch.tensor([[123_456.0]], dtype=torch.float64))
    scale = math.exp(6 * math.tanh(-0.6 / 6))
    a = (x.double().item() - 0.2) / scale
    want = -a - 2 * math.log1p(math.exp(-a)) - math.log(scale) + math.log(6 / 200_001)
    assert likelihood.log_prob(torch.tensor([[0.0, 0.2, 0.0]]), x).item() == pytest.approx(want, abs=2e-6)


def test_other_data_are_refused() -> None:
    with pytest.raises(zoo.ZooError, match="no columns"):
        TableLikelihood(zoo.DataSpec(Vector(3)))
