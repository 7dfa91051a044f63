"""Sentences of the diagnosis for curves whose cause is known."""

import math

import pytest

from zoo.config.compose import compose
from zoo.training.diagnosis import diagnose, diagnose_trend, read_curves
from zoo.training.train import train

FALLING = [(99, 5.0), (199, 3.0), (299, 2.2), (399, 2.02), (499, 2.01)]


def test_a_good_run_has_no_problem():
    curves = {
        "val/loss": FALLING,
        "val/kl": [(499, 8.0)],
        "samples/spread": [(499, 0.9)],
        "samples/classes": [(499, 1.0)],
        "samples/detail": [(499, 0.6)],
        "samples/density": [(499, 0.9)],
    }
    assert diagnose(curves, "val/loss") == []


def test_a_policy_near_its_reference_has_not_collapsed():
    """`kto` logs the divergence between policy and reference, which begins at zero."""
    assert diagnose({"val/loss": FALLING, "val/kl": [(499, 0.0)]}, "val/loss") == []


@pytest.mark.parametrize(
    ("curves", "name"),
    [
        ({"val/kl": [(99, 5.0), (499, 0.5)], "val/reconstruction": [(499, 99.0)]}, "posterior collapse"),
        ({"samples/spread": [(499, 0.21)], "val/kl": [(499, 61.0)]}, "little variety"),  # `vae` on 200 landscapes
        ({"samples/spread": [(499, 0.02)], "train/loss_g": [(499, 0.7)]}, "mode collapse"),
        ({"samples/detail": [(499, 0.03)], "samples/spread": [(499, 0.61)]}, "blurred"),
        (
            {"samples/density": [(499, 0.59)], "samples/spread": [(499, 0.93)]},
            "samples far from the data",
        ),  # `vae` on rings, a disc
        ({"samples/classes": [(499, 0.2)], "train/loss_g": [(499, 0.7)]}, "mode collapse"),
    ],
)
def test_collapse_has_a_name_and_a_remedy(curves, name):
    (sentence,) = diagnose({"val/loss": FALLING, **curves}, "val/loss")
    assert sentence.startswith(name)
    assert "model" in sentence


def test_trends():
    learning = [(step, 5.0 - step / 100) for step in range(24, 500, 25)]
    flat = [(step, 5.0) for step in range(24, 500, 25)]
    rising = [(99, 5.0), (199, 3.0), (299, 3.2), (399, 3.5), (499, 3.9)]
    falling = [(99, 5.0), (199, 4.0), (299, 3.0), (399, 2.0)]

    def trend(curve, training):
        return " ".join(diagnose_trend(curve, training, "val/loss"))

    assert trend(rising, learning).startswith("over-fitting")
    assert "trainer.max_steps=200" in trend(rising, learning)
    assert trend(rising, flat).startswith("unsteady")
    assert trend([(99, 2.0), (199, 3.0), (299, 4.0)], flat).startswith("diverged")
    assert trend([(99, 2.0), (399, 3.0)], learning).startswith("over-fitting")
    assert trend([(99, 2.0), (199, math.nan)], learning).startswith("diverged")
    assert trend(falling, learning).startswith("still falling")
    assert trend([(99, 5.0), (199, 4.0)], learning) == ""


def test_noise_is_not_a_trend():
    assert diagnose_trend([(99, 0.0), (199, 0.0), (299, 0.0), (399, 0.002)], [], "val/uncovered") == []
    assert diagnose_trend([(99, -100.0), (199, -150.0), (299, -151.0), (399, -150.0)], [], "val/loss") == []


def test_a_short_training_is_not_judged_by_its_samples():
    def sentences(batches):
        return diagnose({"val/loss": [(batches - 1, 2.0)], "samples/spread": [(batches - 1, 0.1)]}, "val/loss")

    assert [sentence.split(":")[0] for sentence in sentences(4) + sentences(100)] == ["too short", "little variety"]


@pytest.mark.parametrize(("batches", "name"), [(4, "too short"), (100, "little variety")])
def test_the_last_lines_of_a_run_name_the_problem(tmp_path, capsys, batches, name):
    lr = "model.optimizer.lr=1e-9"  # learns nothing
    often = [f"trainer.max_steps={batches}", f"trainer.val_check_interval={batches // 2}"]
    train(compose("model=vae", "data=moons", "trainer=smoke", *often, lr), str(tmp_path / "run"))
    assert f"problem  {name}" in capsys.readouterr().out
    assert {"samples/spread", "samples/density"} <= read_curves(tmp_path / "run" / "metrics.csv").keys()


def test_a_model_fitted_at_once_is_not_called_too_short(tmp_path, capsys):
    train(compose("model=gmm", "data=moons", "trainer=smoke"), str(tmp_path / "run"))
    assert "problem" not in capsys.readouterr().out
