"""Scores of filled-in cells: by hand, and in closed form for a normal distribution."""

import math
from typing import Any

import pytest
import torch

import zoo
from zoo.core.columns import Column, write_columns
from zoo.core.spaces import Table
from zoo.data.loader import make_generator
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.imputation import DRAWS, ImputationSuite
from zoo.metrics.imputation import centre, imputation_scores
from zoo.models.baselines.gaussian_copula import GaussianCopula
from zoo.nn.blocks.table_codec import TableCodec

LINE = {"low": -9.0, "high": 9.0, "knots": (0.0, 1.0), "scores": (-9.0, 9.0)}  # scores are the numbers
MIXED = (Column("n", "number", **LINE), Column("c", "category", ("a", "b", "c"), missing=True))
NAN = math.nan


def test_scores_by_hand():
    cells = torch.tensor([[1.0, 0], [2, 2], [6, 2], [NAN, NAN]], dtype=torch.float64)
    assert centre(cells, MIXED).tolist() == [3, 2]
    assert centre(cells[:1], MIXED).tolist() == [1, 0]
    assert centre(cells[3:], MIXED).isnan().all()
    stacked = torch.stack([cells, cells.flip(0)], 0)
    assert torch.equal(centre(stacked, MIXED)[1], centre(cells, MIXED))
    filled = torch.tensor([[2.0, 0], [2, 0], [2, 2], [9, 1]], dtype=torch.float64)
    hidden = torch.tensor([[True, True], [True, True], [False, True], [True, True]])
    found = imputation_scores(cells, filled, hidden, MIXED, torch.tensor([2.0, 1.0]))
    assert found == {"nrmse": pytest.approx(math.sqrt(0.25 / 2)), "accuracy": pytest.approx(2 / 3)}
    assert imputation_scores(cells, filled, hidden & False, MIXED, torch.ones(2)) == {}


class Pairs(zoo.DataModule):
    """Two normal numbers of a correlation."""

    registered_name = "pairs of numbers"

    def __init__(self, rho: float, n: int = 1_000) -> None:
        super().__init__(64, 0)
        self.rho, self.n = rho, n

    @property
    def spec(self) -> zoo.DataSpec:
        columns = tuple(Column(name, "number", **LINE) for name in "ab")
        return zoo.DataSpec(Table(write_columns(columns)), name="pairs")

    def load(self) -> None:
        noise = torch.randn(3, self.n, 2, dtype=torch.float64, generator=make_generator(0))
        a, b = noise.unbind(-1)
        cells = torch.stack([a, self.rho * a + math.sqrt(1 - self.rho**2) * b], -1)
        codec = TableCodec(self.spec.x)
        self.train, self.val, self.test = ((codec.encode(part), torch.zeros(self.n).long()) for part in cells)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_the_suite_finds_the_error_of_a_normal_distribution(rho):
    """A hidden number, whose partner is given with probability 0.8, and the mean of D draws: known variances."""
    data: Any = Pairs(rho)
    data.setup()
    model = GaussianCopula(data.spec)
    model.correlation.copy_(torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64))
    suite, scores = ImputationSuite(), []
    assert suite.applies(model, data)
    for correlation in (rho, -rho):  # negative control: the wrong sign
        model.correlation[0, 1] = model.correlation[1, 0] = correlation
        found = suite.measure(EvaluationContext(model, data, EvaluationConfig()))
        scores.append({name.partition("@")[0]: metric.value for name, metric in found.items()})
    given = 0.8 * (1 - rho**2) + 0.2  # variance of a hidden number given the rest
    tolerance = 4 * 1.5 / math.sqrt(2 * 0.4 * 1_000)
    assert scores[0]["imputation_nrmse"] == pytest.approx(math.sqrt(given * (1 + 1 / DRAWS)), abs=tolerance)
    assert scores[0]["imputation_nrmse_mean"] == pytest.approx(1, abs=tolerance)
    assert list(scores[0]) == ["imputation_nrmse", "imputation_nrmse_mean"], "there is no category"
    if rho:
        assert scores[0]["imputation_nrmse"] < 0.75 * scores[0]["imputation_nrmse_mean"]
        assert scores[1]["imputation_nrmse"] > 1.3 * scores[0]["imputation_nrmse_mean"]
