"""Suites on small models whose metrics are known."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from zoo.core.spaces import Tokens, Vector
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.evaluation.context import EvaluationConfig
from zoo.evaluation.suites.latent import latents
from zoo.evaluation.suites.likelihood import LikelihoodSuite
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
    """Where the posterior is the prior, draws match it, and means are all in one place."""
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
