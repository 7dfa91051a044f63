"""Suites on small models whose metrics are known."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo.core.spaces import Series, Tokens, Vector
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.evaluation.context import EvaluationConfig
from zoo.evaluation.suites.codebook import CodebookSuite
from zoo.evaluation.suites.forecasts import ForecastSuite
from zoo.evaluation.suites.latent import latents
from zoo.evaluation.suites.likelihood import LikelihoodSuite
from zoo.evaluation.suites.recommendation import RecommendationSuite
from zoo.evaluation.suites.reconstruction import ReconstructionSuite
from zoo.evaluation.suites.retrieval import RetrievalSuite
from zoo.metrics.latent import aggregate_match
from zoo.models.results import Likelihood


class Context:
    """Batches of a fixed size, in place of the data of a run."""

    def __init__(self, model: Any, x: Tensor, y: Tensor, data: Any = None) -> None:
        self.model, self.rows, self.data, self.protocol = model, (x, y), data, EvaluationConfig()

    def batches(self, size: int = 4) -> Any:
        return (Batch(x, y) for x, y in zip(*(rows.split(4) for rows in self.rows), strict=True))

    def name(self, metric: str, n: int | None = None) -> str:
        return metric


@pytest.mark.parametrize("name", ["vae", "ladder_vae"])
def test_draws_and_not_means_are_compared_with_the_prior(name: str) -> None:
    """Draws match the prior if each posterior is the prior, and means are all in one place."""
    torch.manual_seed(0)
    settings: dict[str, Any] = (
        {"posterior": "vmf", "prior": "uniform_sphere", "latent_dim": 3} if name == "vae" else {"latent_dims": [2]}
    )
    model: Any = zoo.create_model(name, data=zoo.DataSpec(Vector(2), name="points"), **settings).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    if name == "vae":
        model.head.bias.data = torch.tensor([1.0, 0, 0, -20])  # a direction, and hardly any concentration
    x, y = torch.randn(400, 2, generator=make_generator(0)), torch.zeros(400).long()
    with torch.no_grad():
        found = latents(Context(model, x, y))["latent_mmd"]  # type: ignore[arg-type]
        means = aggregate_match(model.encode(x), model.sample_prior(400, make_generator(0, 5)))
    assert means > 0.3, "the control"
    assert abs(found.value) < 0.1 * means


class Names:
    """Log-probability 0 of a row with its own text, and -1 with another."""

    conditional = False
    spec = SimpleNamespace(text=False, size=1)
    given = Tokens(1, 9)

    def likelihoods(self, x: Tensor, y: Tensor, k: int) -> list[Likelihood]:
        return [Likelihood(-(x[:, 0] != y[:, 0]).double(), "discrete", exact=True)]


@pytest.mark.parametrize("n", [4, 7, 9])
def test_every_row_is_given_the_text_of_another(n: int) -> None:
    """Also in a last batch of one row, which once was given its own."""
    x = torch.arange(n)[:, None]
    data = SimpleNamespace(spec=SimpleNamespace(condition=None))
    found = LikelihoodSuite().measure(Context(Names(), x, x, data))  # type: ignore[arg-type]
    assert found["nll_given_text"].value == 0, "the control"
    assert found["nll_given_other_text"].value == 1


class Embeds:
    """Pictures and texts whose nearest neighbours are known: the embedding of token t is a direction."""

    tokenizer = SimpleNamespace(decode=lambda ids: " ".join(map(str, ids)))

    def embed_data(self, x: Tensor) -> Tensor:
        return x

    def embed(self, texts: list[str]) -> Tensor:
        return torch.eye(4)[[int(text) for text in texts]]


def test_recall_of_captions_and_pictures() -> None:
    """Six pictures of four captions: the fifth is nearest to a wrong caption, and the next one is right."""
    captions = torch.tensor([0, 1, 2, 3, 0, 1])[:, None]
    pictures = torch.eye(4)[captions[:, 0]].clone()
    pictures[4] = torch.tensor([0.5, 0.0, 0.0, 2.0])
    data = SimpleNamespace()
    found = RetrievalSuite().measure(Context(Embeds(), pictures, captions, data))  # type: ignore[arg-type]
    assert found["caption_recall1"].value == pytest.approx(5 / 6)
    assert found["caption_recall5"].value == 1
    assert found["picture_recall1"].value == 1
    chance = {k: float(v.note.rpartition(" ")[2]) for k, v in found.items() if v.note}
    assert chance["caption_recall1"] == 0.25
    assert chance["caption_recall5"] == chance["picture_recall10"] == 1, "all candidates"
    # Two captions have 2 of 6 pictures and two have 1: of 5 places, 1 - C(4, 5) / C(6, 5) = 1, and 5 / 6.
    assert chance["picture_recall5"] == pytest.approx((1 + 5 / 6) / 2, abs=1e-3)


class Walks:
    """Forecasts a normal law around the last value, of a given spread."""

    def __init__(self, spread: float) -> None:
        self.spread, self.device = spread, torch.device("cpu")

    def forecast(
        self, history: Tensor, horizon: int, n: int, *, condition: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        noise = torch.randn(len(history), n, horizon, 1, generator=generator, dtype=torch.float64)
        return history[:, None, -1:] + self.spread * noise


@pytest.mark.parametrize("missing", [False, True])
def test_forecasts_of_a_known_law(missing: bool) -> None:
    """Normal futures around the last value: the score of the law is 1 / sqrt(pi), and quantile losses are integrals."""
    space = Series(5, ("a",), 2, missing=missing)
    noise = torch.randn(500, 5, 1, generator=make_generator(1), dtype=torch.float64)
    x = torch.cat([3 + noise[:, :3], 3 + noise[:, 2:3] + noise[:, 3:]], 1)
    x[:300, 4] = torch.nan if missing else x[:300, 4]
    data = SimpleNamespace(spec=SimpleNamespace(x=space, condition=None))
    scale = float(x[:, 3:].abs().nanmean())
    found = {}
    for spread in (1.0, 3.0):
        model, y = Walks(spread), torch.zeros(500)
        context = SimpleNamespace(model=model, data=data, held_out=(x, y), protocol=EvaluationConfig())
        context.name = lambda metric, n: f"{metric} {n}"
        found[spread] = ForecastSuite().measure(context)  # type: ignore[arg-type]
    right, wide = found[1.0], found[3.0]
    for name, exact in (
        ("crps 500", 1 / math.sqrt(math.pi) / scale),
        ("coverage50 500", 0.5),
        ("coverage80 500", 0.8),
        ("absolute_error 500", math.sqrt(2 / math.pi) / scale),
        ("crps_last_value 500", math.sqrt(2 / math.pi) / scale),
    ):
        error = right[name].error
        assert error is not None
        assert abs(right[name].value - exact) < 4.5 * error + 0.01
        if not name.startswith("crps_last"):
            assert abs(wide[name].value - right[name].value) > 4.5 * error or name.startswith("absolute")


class Recommends:
    """Scores of five items that are the same for all users."""

    def score_items(self, x: Tensor) -> Tensor:
        return torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]).expand(len(x), 5)


def test_rankings_leave_out_the_items_that_were_given() -> None:
    """Of three users, worked out by hand; a popular item that is known to the user is not ranked."""
    x = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 1, 0, 0, 0]])
    y = torch.tensor([[0.0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [1.0, 0, 0, 0, 1]])
    training = torch.tensor([[0.0, 0, 1, 0, 1], [0, 0, 1, 0, 1], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 1]])
    fitting = lambda: [(training, training)]  # noqa: E731
    data = SimpleNamespace(spec=SimpleNamespace(size=5), fitting_dataloader=fitting)
    found = RecommendationSuite().measure(Context(Recommends(), x, y, data))  # type: ignore[arg-type]
    gain = {place: 1 / math.log2(place + 1) for place in range(1, 6)}
    # Right items are at places 1, 3, and (1, 4), because the items that were given are not ranked.
    wanted = (1 + gain[3] + (1 + gain[4]) / (1 + gain[2])) / 3
    assert found["ndcg100"].value == pytest.approx(wanted)
    # By popularity, 4, 2, then 0 and 3 alike, 1: of the second user 4 is known. Item 1 is last of four.
    popular = found["ndcg100_popular"].value
    ties = [(gain[4] + 1 + (1 + gain[place]) / (1 + gain[2])) / 3 for place in (3, 4)]
    assert any(popular == pytest.approx(tie) for tie in ties)
    assert found["recall20"].value == 1


class Codes:
    """Data whose values are codes."""

    device = torch.device("cpu")

    def code_counts(self, x: Tensor) -> Tensor:
        return torch.stack([torch.bincount(column, minlength=4) for column in x.T])

    def reconstruct(self, x: Tensor, y: Tensor) -> Tensor:
        return x + torch.tensor([0.5, -1.0])


def test_use_of_two_codebooks() -> None:
    """One is used evenly, one has a single code; over more rows than a batch."""
    codes = torch.stack([torch.arange(600) % 4, torch.full((600,), 2)], 1)
    context = SimpleNamespace(model=Codes(), training=codes)
    found = CodebookSuite().measure(context)  # type: ignore[arg-type]
    assert found["code_perplexity_of_4@600_train"].value == pytest.approx((4 + 1) / 2)
    assert found["codes_used@600_train"].value == 5 / 8
    assert found["dead_codes_of_8@600_train"].value == 3


def test_reconstructions_are_compared_row_by_row() -> None:
    x = torch.randn(9, 2, generator=make_generator(2))
    found = ReconstructionSuite().measure(Context(Codes(), x, torch.zeros(9)))  # type: ignore[arg-type]
    assert found["reconstruction_mse"].value == pytest.approx((0.25 + 1) / 2)
    assert set(found) == {"reconstruction_mse"}, "vectors do not have a structural similarity"
