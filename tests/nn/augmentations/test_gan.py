"""Augmentation for discriminators: identities, laws by brute force, gradients, and the controller's response."""

import math

import pytest
import torch

import zoo
from zoo.core.errors import ConfigError
from zoo.core.spaces import Image, Vector
from zoo.nn.augmentations import gan
from zoo.nn.augmentations.gan import Adaptive, DiffAugment, cut_out, move, recolor, translate

GREY, COLOUR = zoo.DataSpec(Image(1, 6, 8)), zoo.DataSpec(Image(3, 6, 8))


def images(n: int = 5, channels: int = 3) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(n, channels, 6, 8, dtype=torch.float64) * 2 - 1


def test_no_probability_is_the_identity_bit_for_bit():
    x = images(channels=1)
    augment = Adaptive(GREY)
    assert torch.equal(augment(x), x)
    augment.probability.fill_(0.8)
    assert not torch.equal(augment(x), x)


@pytest.mark.parametrize("augment", [DiffAugment(COLOUR), Adaptive(COLOUR)], ids=["diffaug", "ada"])
def test_gradients_reach_the_image_and_are_right(augment):
    if isinstance(augment, Adaptive):
        augment.probability.fill_(1.0)
    x = images(3).requires_grad_()

    def changed(x):
        torch.manual_seed(1)
        return augment(x)

    assert torch.autograd.gradcheck(changed, x)
    assert torch.autograd.grad(changed(x).sum(), x)[0].abs().sum() > 0


def test_a_shift_is_one_of_all_shifts_each_equally_often():
    """Brute force over all of them; black, -1, comes in."""
    x = images(1)[0]
    shifts = {}
    for up in range(-1, 2):
        for left in range(-1, 2):
            moved = torch.full_like(x, -1.0)
            rows, columns = range(max(0, up), 6 + min(0, up)), range(max(0, left), 8 + min(0, left))
            for r in rows:
                for c in columns:
                    moved[:, r, c] = x[:, r - up, c - left]
            shifts[up, left] = moved
    torch.manual_seed(0)
    found = translate(x.expand(1800, -1, -1, -1), 0.125)  # one pixel of 6 rows, one of 8 columns
    counts = [sum(torch.equal(each, moved) for each in found) for moved in shifts.values()]
    assert sum(counts) == 1800
    assert all(abs(count - 200) < 4.5 * math.sqrt(200) for count in counts)


def test_a_hole_is_a_grey_square_of_its_size_wherever_it_fits():
    torch.manual_seed(0)
    changed = cut_out(torch.ones(500, 1, 6, 8), 0.5)
    holes = changed[:, 0] == 0  # (B, H, W)
    assert int(holes.sum((1, 2)).max()) == 3 * 4
    assert set(holes.any(2).sum(1).tolist()) <= {0, 1, 2, 3}
    assert bool(holes.any(0).all()), "every pixel is hit at times"


def test_colours_change_as_their_formulas_say(monkeypatch):
    x, one = images(2), torch.ones(2)
    amounts = iter([0.4, -0.5, 0.7])
    monkeypatch.setattr(gan, "uniform", lambda x: torch.full((len(x), 1, 1, 1), next(amounts), dtype=x.dtype))
    bright = x + 2 * 0.5 * 0.4
    grey = bright.mean(1, keepdim=True)
    vivid = grey + (bright - grey) * (1 - 0.5)
    mean = vivid.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(recolor(x, one), mean + (vivid - mean) * (1 + 0.5 * 0.7))
    amounts = iter([0.4, -0.5, 0.7])
    none = torch.zeros(2)
    assert torch.equal(recolor(x, none, none, none), x)


def test_a_quarter_turn_and_a_shift_are_exact(monkeypatch):
    """Turns of a square by 90 degrees, and shifts by whole pixels, need no interpolation."""
    x = images(2)[:, :, :, :6]
    monkeypatch.setattr(gan, "TURN", math.pi / 2)
    monkeypatch.setattr(gan, "SHIFT", 1 / 6)
    for kind, wanted in (
        ([0, 1, 0], (torch.rot90(x, 1, (2, 3)), torch.rot90(x, -1, (2, 3)))),
        ([1, 0, 0], (torch.cat([x[:, :, 1:], x[:, :, -1:]], 2), torch.cat([x[:, :, :1], x[:, :, :-1]], 2))),
    ):
        sides = []
        for sign in (1.0, -1.0):
            amounts = torch.tensor([[0.0, sign, sign, 0.0]])
            monkeypatch.setattr(torch, "rand", lambda *_, a=amounts, **__: ((a + 1) / 2).expand(2, 4).double())
            sides.append(move(x, torch.tensor([kind, kind]).double()))
        assert all(any(torch.allclose(side, each, atol=1e-9) for each in wanted) for side in sides)
        assert not torch.allclose(sides[0], sides[1])


def test_the_controller_reaches_its_target():
    """A discriminator whose certainty falls with the probability: the signal settles at the target."""
    augment = Adaptive(GREY, target=0.6, rise_images=2000)
    generator = torch.Generator().manual_seed(0)
    signals, probabilities = [], []
    for _ in range(300):
        known = 0.95 - 0.3 * float(augment.probability)  # share of positive logits
        augment.observe(torch.where(torch.rand(64, generator=generator) < known, 1.0, -1.0))
        signals.append(float(augment.signal))
        probabilities.append(float(augment.probability))
    assert sum(signals[-150:]) / 150 == pytest.approx(0.6, abs=0.03)
    assert sum(probabilities[-150:]) / 150 == pytest.approx(0.5, abs=0.05), "2 known - 1 = .6"
    for _ in range(300):
        augment.observe(torch.full((64,), -1.0))
    assert float(augment.probability) == 0
    for _ in range(300):
        augment.observe(torch.ones(64))
    assert float(augment.probability) == pytest.approx(0.8)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="changes images"):
        zoo.create_model("gan", data=zoo.DataSpec(Vector(2)), augmentation="ada")
    for loss in ("wasserstein", "relativistic"):
        with pytest.raises(ConfigError, match="signs of logits have no meaning"):
            zoo.create_model("gan", data=GREY, augmentation="ada", loss=loss)
    zoo.create_model("gan", data=GREY, augmentation="diffaug", loss="wasserstein")
