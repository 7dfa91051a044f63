"""Drawn shapes: each image has the factors that it claims."""

from functools import cache

import torch

import zoo
from zoo.data.image.shapes import SIDE, STEP, Shapes
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.disentanglement import DisentanglementSuite


@cache
def loaded() -> Shapes:
    data = Shapes()
    data.setup()
    return data


def images(rows: torch.Tensor) -> torch.Tensor:
    return loaded().images[rows].double()


def test_all_combinations_are_there_once_and_differ() -> None:
    data = loaded()
    rows = torch.cat([data.train[0], data.val[0], data.test[0]])
    assert torch.equal(rows.sort()[0], torch.arange(6144))
    factors = data.factors(rows)
    assert len(factors.unique(dim=0)) == 6144
    assert factors.max(0)[0].tolist() == [n - 1 for n in data.factor_sizes]
    assert len(data.images.flatten(1).unique(dim=0)) == 6144
    assert torch.equal(data.train[1], data.factors(data.train[0])[:, 0])
    x, _ = data.fetch(data.val, torch.arange(5), torch.Generator(), train=False)
    data.spec.x.validate(x)
    torch.testing.assert_close(x[0], images(data.val[0][:1])[0].float() / 255)
    again = Shapes()
    again.load()
    assert torch.equal(again.train[0], data.train[0])
    assert torch.equal(again.images, data.images)


def test_position_moves_the_same_picture() -> None:
    data, place = loaded(), torch.arange(SIDE, dtype=torch.float64)
    table = torch.arange(6144).view(data.factor_sizes)
    x = images(table.flatten()).view(*data.factor_sizes, SIDE, SIDE)
    mass = x.sum((-1, -2))
    assert (mass == mass[..., :1, :1]).all()  # nothing is cut off
    across = (x.sum(-2) * place).sum(-1) / mass
    down = (x.sum(-1) * place).sum(-1) / mass
    torch.testing.assert_close(across.diff(dim=3), torch.full_like(across.diff(dim=3), STEP))
    torch.testing.assert_close(down.diff(dim=4), torch.full_like(down.diff(dim=4), STEP))
    assert across.diff(dim=4).abs().max() < 1e-9
    assert down.diff(dim=3).abs().max() < 1e-9


def test_scale_and_rotation_change_size_and_direction() -> None:
    data = loaded()
    x = images(torch.arange(6144)).view(*data.factor_sizes, SIDE, SIDE)
    mass = x.sum((-1, -2))[..., 4, 4] / 255  # (shape, scale, rotation)
    area = mass.mean(2)
    ratio = area / area[:, :1]
    expected = (torch.tensor([5.0, 6, 7, 8], dtype=torch.float64) / 5) ** 2
    torch.testing.assert_close(ratio, expected.expand(3, 4), rtol=0.02, atol=0)
    assert (mass.max(2)[0] / mass.min(2)[0]).max() < 1.05  # a turn keeps the area
    centred = x[:, :, :, 4, 4].roll((-1, -1), (-2, -1))  # positions are odd numbers of pixels from the centre
    for turn in range(8):
        error = torch.rot90(centred[:, :, turn], 1, (-2, -1)) - centred[:, :, (turn + 2) % 8]
        assert (error.abs().sum((-1, -2)) < 0.05 * 255 * mass[:, :, turn]).all()  # a quarter of a turn
        other = centred[:, :, turn] - centred[:, :, (turn + 4) % 8]
        assert (other.abs().sum((-1, -2)) > 0.3 * 255 * mass[:, :, turn]).all()  # half a turn changes every shape


def test_the_suite_measures_perfect_codes_and_applies_to_known_factors_only(monkeypatch) -> None:
    monkeypatch.setattr("zoo.metrics.disentanglement.TREES", 3)
    data, suite = loaded(), DisentanglementSuite()
    model = zoo.create_model("vae", data=data.spec, latent_dim=5).eval()
    assert suite.applies(model, data)
    assert not suite.applies(model, zoo.create_data("digits"))
    assert not suite.applies(zoo.create_model("gan", data=data.spec), data)
    truth = {image.numpy().tobytes(): row for row, image in enumerate(data.images)}

    def encode(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        rows = [truth[image.numpy().tobytes()] for image in (x * 255).round().to(torch.uint8)]
        return data.factors(torch.tensor(rows)).float()

    model.encode = encode  # type: ignore[method-assign]
    scores = suite.measure(EvaluationContext(model, data, EvaluationConfig()))
    assert scores["mig@6144_all"].value > 0.999
    assert scores["sap@6144_all"].value > 0.999
    assert all(scores[f"dci_{name}@6144_all"].value > 0.95 for name in ("disentanglement", "completeness"))
    model.encode = lambda x, y: torch.randn(len(x), 5)  # type: ignore[method-assign]
    scores = suite.measure(EvaluationContext(model, data, EvaluationConfig()))
    assert all(metric.value < 0.05 for metric in scores.values())
