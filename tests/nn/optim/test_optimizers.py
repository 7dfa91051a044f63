"""Registered optimizers: closed forms, groups, schedules, and those of plug-ins."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import zoo
from tests.contracts.specs import make
from zoo.config.compose import compose, to_plain
from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.core.spaces import Vector
from zoo.nn.optim.base import build_config, decayed_groups
from zoo.nn.optim.lion import Lion
from zoo.nn.optim.lr_schedule import lr_factor
from zoo.nn.optim.muon import Muon

SPEC = zoo.DataSpec(Vector(2), name="points")


def stepped(optimizer: torch.optim.Optimizer, weight: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


def test_lion_follows_the_papers_equations() -> None:
    """Two steps of algorithm 2, in double precision; the momentum of the first decides signs in the second."""
    start, lr, (b1, b2), decay = torch.tensor([1.0, -2.0, 3.0]).double(), 0.1, (0.9, 0.99), 0.5
    gradients = [torch.tensor([1.0, -4.0, 0.0]).double(), torch.tensor([-0.05, -1.0, 0.0]).double()]
    weight = nn.Parameter(start.clone())
    found = stepped(Lion([weight], lr, (b1, b2), decay), weight, gradients)
    momentum, expected = torch.zeros(3).double(), start
    for gradient in gradients:
        expected = expected - lr * ((b1 * momentum + (1 - b1) * gradient).sign() + decay * expected)
        momentum = b2 * momentum + (1 - b2) * gradient
    torch.testing.assert_close(found, expected)
    assert found[0] == pytest.approx((1 * 0.95 - 0.1) * 0.95 - 0.1), "the momentum outweighs the second gradient"


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lion", "muon"])
def test_each_optimizer_finds_a_minimum(name: str) -> None:
    config = build_config({"name": name, "lr": 0.02})
    weight = nn.Parameter(torch.tensor([[3.0, -2.0], [0.5, 1.0]]))
    optimizer = config.build([{"params": [weight]}], hidden=[weight])
    for _ in range(400):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert weight.abs().max() < 0.1


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_torchs_optimizers_get_all_settings(name: str) -> None:
    given = {"lr": 0.3, "weight_decay": 0.2, **({"momentum": 0.7} if name == "sgd" else {"betas": [0.5, 0.8]})}
    defaults = build_config({"name": name, **given}).build([{"params": [nn.Parameter(torch.ones(2))]}]).defaults
    assert {key: defaults[key] for key in given} == {**given, **({"betas": (0.5, 0.8)} if "betas" in given else {})}


def test_muon_takes_kernels_of_convolutions_as_matrices() -> None:
    """The update of a kernel is that of the matrix (out, rest)."""
    torch.manual_seed(0)
    kernel, gradient = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    one, other = nn.Parameter(kernel.clone()), nn.Parameter(kernel.flatten(1).clone())
    for weight, slope in ((one, gradient), (other, gradient.flatten(1))):
        stepped(Muon([weight], []), weight, [slope])
    torch.testing.assert_close(one.flatten(1), other)
    assert not torch.equal(one, kernel)


def test_muon_scales_both_rates_of_a_group() -> None:
    matrix, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    config = build_config({"name": "muon", "lr": 0.1, "muon_lr": 0.4})
    groups = config.build([{"params": [matrix, bias], "lr": 0.05}], hidden=[matrix]).param_groups
    assert [(group["muon"], group["lr"]) for group in groups] == [(True, pytest.approx(0.2)), (False, 0.05)]


def test_gains_and_biases_do_not_decay() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm(2), nn.Embedding(3, 2))
    decayed, others = decayed_groups(net.parameters(), 0.1)
    assert {id(p) for p in decayed["params"]} == {id(net[0].weight), id(net[2].weight)}
    assert others["weight_decay"] == 0.0
    assert len(others["params"]) == 3


@pytest.mark.parametrize(("total", "warmup", "decay"), [(100, 10, 0.2), (1000, 0, 0.5), (50, 20, 1.0)])
def test_wsd_is_warmup_stable_decay(total: int, warmup: int, decay: float) -> None:
    start = max(total - decay * total, warmup)
    for step in range(total + 1):
        expected = 1.0
        if step < warmup:
            expected = (step + 1) / (warmup + 1)
        elif step > start:
            expected = (total - step) / (total - start)
        assert lr_factor(step, total, "wsd", warmup, decay=decay) == pytest.approx(expected)
    assert lr_factor(total, total, "wsd", warmup, decay=decay) == 0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_end_at_zero(schedule: str) -> None:
    half = {"linear": 0.5, "cosine": 0.5 * (1 + math.cos(math.pi / 2))}[schedule]
    assert [lr_factor(n, 40, schedule) for n in (0, 20, 40)] == pytest.approx([1, half, 0])


def test_the_model_lays_the_schedule_over_the_training() -> None:
    model = zoo.create_model("ae", data=SPEC, optimizer={"name": "sgd", "lr": 0.5, "schedule": "wsd", "warmup": 3})
    config = model.optimizer_config
    assert (config.lr, config.schedule) == (0.5, "wsd")
    assert [config.lr_factor(n, 100) for n in (0, 50, 90, 100)] == [0.25, 1.0, pytest.approx(0.5), 0.0]


@pytest.mark.parametrize(
    ("name", "key"), [("vae", "image"), ("ae", "vector"), ("pixelcnn", "image"), ("gpt", "tokens"), ("gan", "vector")]
)
def test_gains_and_biases_never_decay(name: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = {"name": "adamw", "weight_decay": 0.3}
    model = make(name, key, optimizer=optimizer)
    monkeypatch.setattr(type(model), "total_steps", 10)
    built = model.configure_optimizers()
    optimizers = [one["optimizer"] for one in (built if isinstance(built, (list, tuple)) else [built])]
    seen: dict[bool, set[bool]] = {True: set(), False: set()}
    for group in (group for one in optimizers for group in one.param_groups):
        for parameter in group["params"]:
            seen[parameter.ndim >= 2].add(group["weight_decay"] > 0)
    assert seen[False] == {False}
    assert True in seen[True], "the control: matrices decay"


def test_a_recipes_settings_of_another_optimizer_are_left_out(caplog) -> None:
    cfg = to_plain(compose("model=gan", "model/optimizer=sgd").model)["optimizer"]
    assert cfg["betas"] == [0.0, 0.99], "the recipe's, for Adam"
    config = build_config(cfg)
    assert (type(config).registered_name, config.lr, config.momentum) == ("sgd", 2e-3, 0.9)
    assert "sgd has no betas" in caplog.text
    with pytest.raises(ZooError, match=r"model.optimizer: unknown setting 'beta'"):
        build_config({"name": "sgd", "beta": 1})


def test_the_command_line_refuses_what_no_optimizer_has() -> None:
    with pytest.raises(ZooError, match=r"unknown setting 'momentun', did you mean 'momentum'"):
        compose("model=gan", "model/optimizer=sgd", "model.optimizer.momentun=0.5")
    with pytest.raises(ZooError, match=r"unknown optimizer 'ada', did you mean 'adam"):
        compose("model=gan", "model/optimizer=ada")
    with pytest.raises(ZooError, match=r"model.optimizer.lr has a value of the wrong type"):
        compose("model=gan", "model.optimizer.lr=fast")


@pytest.mark.parametrize("key", ["lr", "betas", "schedule", "warmup", "weight_decay"])
@pytest.mark.parametrize("place", ["", "model."])
def test_settings_of_before_name_their_new_place(key: str, place: str) -> None:
    with pytest.raises(ZooError, match=rf"{place}{key}: no such setting. Did you mean model.optimizer.{key}\?"):
        compose("model=gan", f"{place}{key}=1")


def test_anybodys_optimizer_trains_any_model() -> None:
    with registry.isolated():

        @zoo.register("optimizer", "mine")
        @dataclass(kw_only=True)
        class Mine(zoo.OptimizerConfig):
            """Gradient descent, slowly."""

            slowness: float = 2.0

            def build(self, groups, *, hidden=(), fused=False):
                return torch.optim.SGD(groups, self.lr / self.slowness)

        cfg = compose("model=vae", "model/optimizer=mine", "model.optimizer.slowness=4", "model.optimizer.lr=1")
        assert build_config(to_plain(cfg.model)["optimizer"]).build(
            [{"params": [nn.Parameter(torch.ones(1))]}]
        ).defaults["lr"] == pytest.approx(0.25)
        model = zoo.create_model("gan", data=SPEC, optimizer="mine")
        assert type(model.optimizer_config) is Mine
