"""Conditional models on unbalanced classes: labels have the frequencies of the training data."""

import math
from pathlib import Path

import pytest
import torch

import zoo
from zoo.core.spaces import Image, Label
from zoo.core.spec import DataSpec
from zoo.data.in_memory import InMemoryData
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.metrics.frechet import frechet, moments
from zoo.models.autoregressive.base import marginal_log_prob

MOST, FEW = 225, 17
SHARE = FEW / (MOST + FEW)


@pytest.fixture
def unbalanced() -> InMemoryData:
    y = torch.tensor([0] * MOST + [1] * FEW)
    data = InMemoryData((0.2 + 0.6 * y).view(-1, 1, 1, 1) + 0.1 * torch.rand(len(y), 1, 4, 4), y)
    data.setup()
    return data


def close(drawn: torch.Tensor, share: float) -> bool:
    """Whether the frequency of class 1 is within five standard errors."""
    return abs(float(drawn.double().mean()) - share) < 5 * math.sqrt(share * (1 - share) / len(drawn))


class Perfect(zoo.Model):
    """Draws real samples of the class that is given."""

    conditional = True

    def __init__(self, spec: DataSpec, data: InMemoryData) -> None:
        super().__init__(spec)
        self.source = data

    def sample(self, n, *, condition=None, generator=None):
        x, y = self.source.x, self.source.y
        rows = [torch.nonzero(y == label).flatten() for label in range(2)]
        picked = torch.stack(
            [rows[label][torch.randint(len(rows[label]), (), generator=generator)] for label in condition]
        )
        return x[picked]


def test_a_perfect_conditional_sampler_scores_like_real_data(unbalanced) -> None:
    model = Perfect(unbalanced.spec, unbalanced)
    context = EvaluationContext(model, unbalanced, EvaluationConfig(samples=1000, features="pixels"))
    x, y = context.drawn
    assert close(y, float(unbalanced.train[1].double().mean()))
    everything = moments(unbalanced.x.flatten(1))
    right = float(frechet(moments(x.flatten(1)), everything))
    uniform = model.sample(1000, condition=torch.arange(1000) % 2, generator=torch.Generator().manual_seed(0))
    assert right < 0.1 * float(frechet(moments(uniform.flatten(1)), everything))


@pytest.mark.parametrize("name", ["cgan", "cvae"])
def test_training_counts_the_classes_and_files_keep_them(name: str, unbalanced, tmp_path: Path) -> None:
    shares = float(unbalanced.train[1].double().mean())
    model = zoo.fit(name, unbalanced, max_steps=2, progress=False, folder=tmp_path / "run", val_check_interval=2)
    again = zoo.load(tmp_path / "run")
    for one in (model, again):
        assert one.class_shares == pytest.approx([1 - shares, shares])
        assert close(one.resolve_labels(4000, None, torch.Generator().manual_seed(1)), shares)
    core = again.export_module()
    *_, labels = core.draw(50, torch.Generator().manual_seed(5))
    assert torch.equal(labels, again.resolve_labels(50, None, torch.Generator().manual_seed(5))), "exports too"
    drawn = again.sample(50, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(core(*core.draw(50, torch.Generator().manual_seed(5))), drawn, rtol=1e-4, atol=1e-5)


def test_labels_of_an_untrained_model_are_equally_likely() -> None:
    model = zoo.create_model("cgan", data=DataSpec(Image(1, 8, 8), Label(2), name="two"))
    assert close(model.resolve_labels(4000, None, torch.Generator().manual_seed(0)), 0.5)


def test_a_class_without_training_data_is_never_drawn() -> None:
    model = zoo.create_model("cgan", data=DataSpec(Image(1, 8, 8), Label(3), name="three"))
    model.class_shares = [0.5, 0.0, 0.5]
    assert set(model.resolve_labels(1000, None, torch.Generator().manual_seed(0)).tolist()) == {0, 2}


def test_the_likelihood_without_labels_is_the_mixture_by_frequency() -> None:
    """p(x) = sum_y p(y) p(x | y), with p(x | y) a table of three values."""
    table = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]).log()
    shares = [0.9, 0.1, 0.0]
    x = torch.arange(3)
    found = marginal_log_prob(lambda x, y: table[y, x], x, shares)
    assert torch.allclose(found.exp(), torch.tensor(shares) @ table.exp())
    assert float(found.exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("name", ["pixelcnn", "pixel_transformer"])
def test_pixel_models_use_the_frequencies(name: str) -> None:
    spec = DataSpec(Image(1, 4, 4, levels=2), Label(2), name="tiny")
    model = zoo.create_model(name, data=spec, conditional=True).eval()
    x = torch.randint(2, (3, 1, 4, 4)).float()
    model.class_shares = [0.0, 1.0]
    with torch.no_grad():
        given = model.log_prob(x, torch.ones(3, dtype=torch.long))
        assert torch.allclose(model.log_prob(x), given)
