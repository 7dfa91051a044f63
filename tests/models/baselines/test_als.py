"""Alternating least squares against ridge regressions solved one by one, and as a descent of its objective."""

import pytest
import torch

import zoo
from zoo.core.spaces import Interactions
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.models.baselines.als import ALS, solve, squared_errors

ALPHA, L2 = 3.0, 0.7


def interactions(n: int = 40, items: int = 9) -> torch.Tensor:
    """Items that depend on each other."""
    noise = torch.randn(n, items, generator=make_generator(1))
    return noise + noise.roll(1, 1) > 0.3


def fitted(x: torch.Tensor, **given) -> ALS:
    model = ALS(zoo.DataSpec(Interactions(x.shape[1])), n_factors=3, alpha=ALPHA, l2=L2, **given)
    model.fit(x)
    return model


@pytest.mark.parametrize("side", ["users", "items"])
def test_every_vector_is_a_weighted_ridge_regression(side: str) -> None:
    """The rows of the weighted problem and of the penalty as one least-squares problem, for each vector alone."""
    x = interactions() if side == "users" else interactions().T
    others = torch.randn(x.shape[1], 3, generator=make_generator(2), dtype=torch.float64)
    found = solve(x, others, ALPHA, L2)
    differ = []
    for row, vector in zip(x, found, strict=True):
        weight = (1 + ALPHA * row.double()).sqrt()
        left = torch.cat([weight[:, None] * others, L2**0.5 * torch.eye(3, dtype=torch.float64)])
        right = torch.cat([weight * row, torch.zeros(3, dtype=torch.float64)])
        wanted = torch.linalg.lstsq(left, right[:, None]).solution[:, 0]
        torch.testing.assert_close(vector, wanted)
        unweighted = torch.linalg.lstsq(
            torch.cat([others, left[-3:]]), torch.cat([row.double(), right[-3:]])[:, None]
        ).solution[:, 0]
        differ.append(not torch.allclose(vector, unweighted, atol=1e-2))
    assert sum(differ) > 0.8 * len(x), "the confidence matters; only where nothing is chosen all weights are one"


def test_parts_do_not_change_the_solution(monkeypatch) -> None:
    x, others = interactions(), torch.randn(9, 3, generator=make_generator(2), dtype=torch.float64)
    whole = solve(x, others, ALPHA, L2)
    errors = squared_errors(x, whole, others, ALPHA)
    monkeypatch.setattr("zoo.models.baselines.als.PART", 7)
    torch.testing.assert_close(solve(x, others, ALPHA, L2), whole)
    torch.testing.assert_close(squared_errors(x, whole, others, ALPHA), errors)


def test_the_objective_is_the_papers_and_never_rises() -> None:
    x, model = interactions(), fitted(interactions(), n_rounds=20)
    assert bool((model.objective.diff() <= 1e-6).all())
    assert float(model.objective[0] - model.objective[-1]) > 0.01
    items, total = model.items.double(), 0.0
    users = solve(x, items, ALPHA, L2)
    for u in range(len(x)):
        for i in range(x.shape[1]):
            chosen = float(x[u, i])
            total += (1 + ALPHA * chosen) * (chosen - float(users[u] @ items[i])) ** 2
    total += L2 * float(users.square().sum() + items.square().sum())
    assert total / len(x) <= float(model.objective[-1]) + 1e-5, "users were solved once more"
    assert total / len(x) == pytest.approx(float(model.objective[-1]), rel=0.01)
    own = float(model.loss(Batch(x.float(), x.float()))["loss"])
    assert own + L2 * float(items.square().sum()) / len(x) == pytest.approx(total / len(x))
    curve = model.curves()[0]
    assert curve.y.tolist() == model.objective.tolist()


def test_no_step_from_the_end_lowers_the_objective() -> None:
    """Brute force around the optimum of items given users; a solution without the penalty is not one."""
    x, model = interactions(), fitted(interactions(), n_rounds=200)
    items = model.items.double()
    users = solve(x, items, ALPHA, L2)

    def objective(items: torch.Tensor) -> float:
        return float(squared_errors(x, users, items, ALPHA).sum() + L2 * items.square().sum())

    best = objective(solve(x.T, users, ALPHA, L2))
    assert objective(items) == pytest.approx(best, rel=1e-5), "both sides are solved"
    for seed in range(20):
        step = 0.02 * torch.randn(items.shape, generator=make_generator(seed), dtype=torch.float64)
        assert objective(items + step) > best
    assert objective(solve(x.T, users, ALPHA, 1e-9)) > best + 0.01


def test_new_users_are_ranked_better_than_by_popularity(tmp_path) -> None:
    zoo.fit("als", "synthetic_interactions", folder=tmp_path / "run", progress=False)
    scores = zoo.evaluate(tmp_path / "run", only=["recommendation"]).scores
    ours, popular = (scores[f"ndcg100{kind}@200_test"] for kind in ("", "_popular"))
    assert ours.value > popular.value + 4 * ours.error
