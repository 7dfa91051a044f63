"""EASE against constrained least squares, Mult-VAE's likelihood by enumeration, and both against known baselines."""

import itertools
import math

import pytest
import torch

import zoo
from tests.contracts.specs import SPECS
from zoo.cli.main import main
from zoo.core.spaces import Interactions, Vector
from zoo.data.loader import make_generator
from zoo.metrics.ranking import ndcg
from zoo.models.baselines.ease import EASE
from zoo.nn.distributions.likelihoods import Multinomial

L2 = 2.5


def interactions(n: int = 60, items: int = 7) -> torch.Tensor:
    """Items that depend on each other."""
    noise = torch.randn(n, items, generator=make_generator(1))
    return (noise + noise.roll(1, 1) > 0.3).float()


def fitted(x: torch.Tensor, **given) -> EASE:
    model = EASE(zoo.DataSpec(Interactions(x.shape[1], tuple("abcdefg"[: x.shape[1]]))), **given)
    model.fit(x > 0)
    return model


def test_ease_is_ridge_regression_of_each_item_on_the_others() -> None:
    """The constrained problem, solved directly: column j has no weight of item j."""
    x, model = interactions(), fitted(interactions(), l2=L2)
    wanted, free = torch.zeros(2, 7, 7, dtype=torch.float64)
    rows = x.double()
    for j in range(7):
        rest = [i for i in range(7) if i != j]
        others = rows[:, rest]
        gram = others.T @ others + L2 * torch.eye(6)
        wanted[rest, j] = torch.linalg.solve(gram, others.T @ rows[:, j])
    free = torch.linalg.solve(rows.T @ rows + L2 * torch.eye(7), rows.T @ rows)  # without the constraint
    torch.testing.assert_close(model.weights.double(), wanted, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(model.weights.double(), free.fill_diagonal_(0), atol=1e-2), "the constraint matters"


def test_ease_is_a_minimum_of_its_objective() -> None:
    x, model = interactions().double(), fitted(interactions(), l2=L2)

    def objective(weights: torch.Tensor) -> float:
        return float((x - x @ weights).square().sum() + L2 * weights.square().sum())

    best = model.weights.double()
    for seed in range(20):
        step = 0.05 * torch.randn(7, 7, generator=make_generator(seed), dtype=torch.float64).fill_diagonal_(0)
        assert objective(best + step) > objective(best)


def test_the_multinomial_sums_to_one_over_all_counts() -> None:
    spec = zoo.DataSpec(Interactions(4))
    likelihood, params = Multinomial(spec), torch.tensor([[0.3, -1.0, 2.0, 0.0]], dtype=torch.float64)
    grid = torch.tensor([c for c in itertools.product(range(4), repeat=4) if sum(c) == 3]).double()
    logs = likelihood.log_prob(params.expand(len(grid), -1), grid)
    assert float(logs.exp().sum()) == pytest.approx(1)
    without = (grid * params.log_softmax(1)).sum(1)  # no coefficient, as in the paper's loss
    assert float(without.exp().sum()) < 0.9
    oracle = torch.distributions.Multinomial(3, logits=params[0])
    torch.testing.assert_close(logs, torch.stack([oracle.log_prob(c) for c in grid]))
    drawn = likelihood.sample(params.expand(20_000, -1), make_generator(0)).mean(0)
    error = (params.softmax(1)[0] * (1 - params.softmax(1)[0]) / 20_000).sqrt()
    assert bool(((drawn - likelihood.mean(params)[0]).abs() < 4 * error).all())
    with pytest.raises(zoo.ZooError, match="needs interactions"):
        Multinomial(zoo.DataSpec(Vector(4)))


def test_a_trained_recommender_lies_between_popularity_and_the_known_tastes(tmp_path, cli) -> None:
    data = zoo.create_data("synthetic_interactions")
    data.setup()
    zoo.fit("ease", "synthetic_interactions", folder=tmp_path / "run", progress=False)
    x, y = data.fetch(data.test, torch.arange(len(data.test[0])), torch.Generator(), train=False)
    whole = data.fetch(data.train, torch.arange(len(data.train[0])), torch.Generator(), train=True)[0]
    known = data.read()[2]
    tastes = data.tastes()[data.test[0]][:, [known.index(name) for name in data.spec.x.names]]

    def value(scores: torch.Tensor) -> torch.Tensor:
        return ndcg(scores.masked_fill(x > 0, -torch.inf), y, 100)

    model = zoo.load(tmp_path / "run")
    rankings = torch.rand(x.shape, generator=make_generator(0)), whole.sum(0).expand_as(x), model.score_items(x), tastes
    chance, popular, ours, oracle = (value(scores) for scores in rankings)
    for worse, better in itertools.pairwise((chance, popular, ours, oracle)):
        gain = better - worse
        assert float(gain.mean()) > 2 * float(gain.std()) / math.sqrt(len(gain))
    scores = zoo.evaluate(tmp_path / "run", only=["recommendation"]).scores
    name = f"ndcg100@{len(x)}_test"
    assert scores[name].value == pytest.approx(float(ours.mean()), abs=1e-6)
    assert scores[name.replace("100@", "100_popular@")].value == pytest.approx(float(popular.mean()), abs=1e-6)
    shown = (tmp_path / "run" / "samples" / "final.txt").read_text()
    assert "*" in shown, "some of the recommended items were chosen"
    told = cli("recommend", str(tmp_path / "run"), "--items", "jazz_1,jazz_2", "-k", "5", entry=main)
    assert told.code == 0, told.err
    lines = told.out.strip().splitlines()
    assert len(lines) == 5
    assert sum("jazz" in line for line in lines) >= 3
    assert not any(line.endswith(("jazz_1", "jazz_2")) for line in lines)


def test_what_is_given_is_not_recommended_and_unknown_items_are_refused() -> None:
    model = fitted(interactions())
    found = model.recommend(["a", "c"], 10)
    assert sorted(name for name, _ in found) == list("bdefg")
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    with pytest.raises(zoo.ConfigError, match="items=z: unknown item"):
        model.recommend(["z"])


def test_multvae_offers_no_samples_and_scores_log_probabilities() -> None:
    model = zoo.create_model("multvae", data=SPECS["interactions"]).eval()
    assert {"recommend", "likelihood"} <= set(model.abilities)
    assert not {"sample", "latents", "interpolate", "export", "prior"} & set(model.abilities)
    x = torch.zeros(2, 40)
    x[0, :3] = x[1, 5] = 1
    scores = model.score_items(x)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(2))
    torch.testing.assert_close(scores, model.score_items(x)), "no dropout in use"
