"""TimeGAN: what each term measures, whom it trains, and that networks read in the order of time."""

import math

import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.core.spaces import Series
from zoo.data.batch import Batch
from zoo.models.adversarial.timegan import TimeGAN, moment_distance

SPEC = zoo.DataSpec(Series(6, ("level", "flow"), 2), name="measurements")
SIZES = {"noise_dim": 3, "embedding_dim": 4, "d_model": 5, "n_layers": 1}


def made(**settings: object) -> TimeGAN:
    torch.manual_seed(0)
    return TimeGAN(SPEC, **(SIZES | {"adversarial_start": 0} | settings))


def windows(n: int = 8) -> Batch:
    return Batch(torch.randn(n, 6, 2, generator=torch.Generator().manual_seed(1)), torch.zeros(n))


def moved(model: TimeGAN, loss: Tensor) -> set[str]:
    """Networks with a gradient of a loss that is not zero."""
    model.zero_grad()
    loss.backward()
    return {
        k for k, net in model.named_children() if any(p.grad is not None and p.grad.any() for p in net.parameters())
    }


class Scale(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def test_the_supervisor_predicts_the_next_step() -> None:
    """By hand: latents double at each step, so doubling is the perfect prediction, and keeping them is not."""
    model = made()
    h = torch.tensor([1.0, 2.0, 4.0])[None, :, None]
    for factor, error in ((2.0, 0.0), (1.0, (1 + 4) / 2), (0.0, (4 + 16) / 2)):
        model.supervisor = Scale(factor)
        assert model.next_error(h).item() == pytest.approx(error)


def test_moments_are_compared_step_by_step() -> None:
    """By hand: one column and two steps; the order of windows does not count, and that of steps does."""
    x = torch.tensor([[0.0, 3.0], [2.0, 3.0]])[..., None]
    fake = torch.tensor([[1.0, 5.0], [5.0, 5.0]])[..., None]
    assert moment_distance(x, fake).item() == pytest.approx((2 + 2) / 2 + (1 + 0) / 2, abs=1e-5)
    assert moment_distance(x, x.flip(0)).item() == pytest.approx(0, abs=1e-5)
    assert moment_distance(x, x.flip(1)).item() > 1


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    """With networks that are known: the embedder and the recovery double and halve, or not quite."""
    model = made(supervised_weight=3.0, reconstruction_weight=5.0, embedding_weight=7.0, adversarial_start=10)
    x = torch.ones(2, 6, 2)
    model.embedder, model.recovery, model.supervisor = Scale(2.0), Scale(1.0), Scale(0.75)
    terms, generated = model.generator_terms(Batch(x, torch.zeros(2)))
    assert generated == ()
    assert terms["loss_g"].item() == pytest.approx(5 * 1 + 7 * 0.25 + 3 * 0.5)
    model = made(uncorrected_weight=0.5, moment_weight=0.0, supervised_weight=0.0, reconstruction_weight=0.0)
    model.hparams["embedding_weight"] = 0.0
    model.discriminator = Scale(0.0)
    terms, generated = model.generator_terms(Batch(x, torch.zeros(2)))
    assert terms["loss_g"].item() == pytest.approx(1.5 * math.log(2))
    terms = model.discriminator_terms(Batch(x, torch.zeros(2)), generated)
    assert terms["loss_d"].item() == pytest.approx(2.5 * math.log(2))


def test_each_network_is_trained_by_its_own_terms() -> None:
    parts = {"embedder", "recovery", "generator", "supervisor"}
    model = made()
    terms, generated = model.generator_terms(windows())
    assert moved(model, terms["loss_g"]) >= parts
    assert moved(model, model.discriminator_terms(windows(), generated)["loss_d"]) == {"discriminator"}
    early = made(adversarial_start=5)
    terms, generated = early.generator_terms(windows())
    assert moved(early, terms["loss_g"]) == parts - {"generator"}
    assert moved(early, early.discriminator_terms(windows(), generated)["loss_d"]) == set()
    alone = {f"{name}_weight": 0.0 for name in ("reconstruction", "supervised", "embedding", "uncorrected")}
    game = made(**alone, moment_weight=1.0)
    terms, _ = game.generator_terms(windows())
    assert moved(game, terms["loss_g"]) - {"discriminator"} == {"generator", "supervisor"}
    model = made(**(alone | {"supervised_weight": 1.0}), adversarial_start=5)
    assert moved(model, model.generator_terms(windows())[0]["loss_g"]) == {"supervisor"}, "latents are fixed"


def test_networks_read_in_the_order_of_time_and_the_discriminator_both_ways() -> None:
    model = made()
    for name, columns, causal in (
        ("embedder", 2, True),
        ("recovery", 4, True),
        ("generator", 3, True),
        ("supervisor", 4, True),
        ("discriminator", 4, False),
    ):
        x = torch.randn(1, 6, columns)
        other = x.clone()
        other[:, 3] += 1
        with torch.no_grad():
            one, two = (getattr(model, name)(part) for part in (x, other))
        assert torch.equal(one[:, :3], two[:, :3]) == causal, name
        assert not torch.allclose(one[:, 3:], two[:, 3:])
