"""The model `flow_map`: rules at the exact map, the equation of MeanFlow, and one-step samples."""

import math

import pytest
import torch

import zoo
from tests.contracts.specs import SPECS, examples
from tests.nn.diffusion.gaussian import MEAN, VARIANCE, gaussian_denoiser
from tests.nn.diffusion.test_flow_map import exact_jump
from zoo.data.batch import Batch
from zoo.models.diffusion.flow_map import FlowMap
from zoo.nn.diffusion.target import coefficients

POINTS = zoo.DataSpec(zoo.core.spaces.Vector(2), name="gaussian")
SMALL = {"denoiser": {"name": "mlp", "width": 16, "depth": 1}}
RULES = [
    {"rule": "progressive"},
    {"rule": "progressive", "split": "half"},
    {"rule": "eulerian", "tangent": "data"},
    {"rule": "eulerian", "tangent": "model"},
    {"rule": "lagrangian"},
    {"rule": "consistency"},
]


class Exact(FlowMap):
    """The network's output is that of the exact flow map of N(MEAN, variance), plus an error of longer jumps."""

    variance = VARIANCE
    error = 0.0

    def draw(self, x, y, generator):
        noise, t, density = super().draw(x, y, generator)
        return noise, t.double(), density.double()

    def predict(self, z, at, y, to=None):
        variance = self.variance
        if to is None:
            x, e = gaussian_denoiser(self.path, variance=variance)(z, at.t.flatten())
        else:
            wide = at.t.flatten().expand(len(z)), to.t.flatten().expand(len(z))
            end = exact_jump(self.path, z, *wide, variance=variance) + self.error * (at.t - to.t) * z
            x = (end - to.s / at.s * z) / (to.a - to.s * at.a / at.s)
            e = (z - at.a * x) / at.s
        p, q = coefficients(self.target, at)
        return p * x + q * e


def exact(**settings) -> Exact:
    return Exact(POINTS, **SMALL, **settings).double().eval()


@pytest.mark.parametrize("path", ["linear", "trigonometric"])
@pytest.mark.parametrize("target", ["velocity", "x"])
@pytest.mark.parametrize("rule", RULES, ids=lambda r: "-".join(r.values()))
def test_a_rules_loss_is_zero_at_the_exact_map(rule: dict, target: str, path: str) -> None:
    """For data at one point, where every target is free of noise."""
    model = exact(path=path, target=target, times={"name": "logit_normal"}, **rule)
    model.variance = torch.zeros(2, dtype=torch.float64)
    x = MEAN.expand(64, 2)
    torch.manual_seed(0)
    assert model.jump_errors(x, None, None)[0].max() < 1e-16
    model.error = 0.1
    torch.manual_seed(0)
    assert model.jump_errors(x, None, None)[0].mean() > 1e-5, "the control: a map that is off"


@pytest.mark.parametrize("rule", RULES[:3:2] + RULES[3:5], ids=lambda r: "-".join(r.values()))
def test_rules_have_no_bias_at_the_exact_map_of_a_normal_distribution(rule: dict) -> None:
    """The expected change of the network's output given z is zero: it does not correlate with functions of z."""
    found = []
    for error in (0.0, 0.3):
        model = exact(**rule)
        model.error = error
        torch.manual_seed(0)
        x = MEAN + VARIANCE.sqrt() * torch.randn(40_000, 2, dtype=torch.float64)
        noise, t, _ = model.draw(x, None, None)
        t, r = t.double() * 0.9 + 0.05, torch.rand(len(x)).double()
        r = r * t * 0.9 + 0.01 * t
        at, to = model.path.at(t).like(x), model.path.at(r).like(x)
        z = at.a * x + at.s * noise
        if rule["rule"] == "lagrangian":
            change = model_lagrangian(model, z, t, r)
        else:
            output = model.predict(z, at, None, to)
            change = model.change_of_velocity(output, x, noise, z, t, r, torch.rand(len(x)).double(), None)
        features = torch.cat([change, change * z], 1)  # (N, 4)
        found.append((features.mean(0) / (features.std(0) + 1e-9) * math.sqrt(len(x))).abs().max().item())
    assert found[0] < 4.5, "standard errors"
    assert found[1] > 8, "the control: a map that is off"


def model_lagrangian(model: FlowMap, z: torch.Tensor, t: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    from zoo.nn.diffusion.flow_map import lagrangian

    return lagrangian(model.jump, lambda z, t: model.velocity_at(z, t, None), z, t, r)


@pytest.mark.parametrize("tangent", ["data", "model"])
def test_the_eulerian_target_is_that_of_the_papers(tangent: str) -> None:
    """MeanFlow: v - (t - r) du/dt for the pair's velocity v. Improved: du/dt along the velocity of the model."""
    model = FlowMap(POINTS, rule="eulerian", tangent=tangent, **SMALL).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 8, 2, dtype=torch.float64, generator=generator)
    t = torch.linspace(0.3, 0.9, 8, dtype=torch.float64)
    r = t / 3
    at, to = model.path.at(t).like(x), model.path.at(r).like(x)
    z, pair = at.a * x + at.s * noise, noise - x

    def mean_velocity(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return model.predict(z, model.path.at(t).like(z), None, to)

    with torch.no_grad():
        output = mean_velocity(z, t)
        along = pair if tangent == "data" else model.predict(z, at, None)
        h = 1e-5
        slope = (mean_velocity(z + h * along, t + h) - mean_velocity(z - h * along, t - h)) / (2 * h)
        goal = output + model.change_of_velocity(output, x, noise, z, t, r, t, None)
    torch.testing.assert_close(goal, pair - (t - r)[:, None] * slope, rtol=1e-6, atol=1e-7)
    assert (goal - pair).abs().max() > 1e-2, "the control: the target of flow matching"


def test_samplers_of_a_diffusion_model_work_too() -> None:
    """One jump of the exact map ends where many steps of Heun's method along its diagonal do."""
    model = exact()
    draw = lambda **options: model.sample(50, generator=torch.Generator().manual_seed(0), **options)  # noqa: E731
    one = draw()
    torch.testing.assert_close(one, draw(steps=2), rtol=0, atol=1e-5)
    torch.testing.assert_close(one, draw(steps=200, sampler="heun"), rtol=0, atol=0.02)
    assert (one - draw(steps=1, sampler="euler")).abs().max() > 0.1, "the control: one step of Euler's method"


def test_a_short_training_gives_one_step_samples() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[-1.5, 0.0], [1.5, 0.0]])
    model = FlowMap(POINTS, denoiser={"name": "mlp", "width": 64, "depth": 2})
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        x = centres[torch.randint(2, (256,))] + 0.2 * torch.randn(256, 2)
        model.loss(Batch.of(x))["loss"].backward()
        optimizer.step()
    draw = lambda **options: model.sample(2000, generator=torch.Generator().manual_seed(0), **options)  # noqa: E731
    share = lambda x: ((x[:, 0].abs() - 1.5).abs() < 0.6).float().mean().item()  # noqa: E731
    assert share(draw()) > 0.8
    assert share(draw(sampler="euler", steps=1)) < 0.2, "the control: the diagonal jumps to the mean"


def test_the_adaptive_weight_leaves_the_value_and_changes_the_gradient() -> None:
    plain, weighted = (
        FlowMap(SPECS["image"], denoiser={"name": "mlp", "width": 16, "depth": 1}, adaptive=p) for p in (0.0, 1.0)
    )
    weighted.load_state_dict(plain.state_dict())
    batch, found = examples(SPECS["image"], 8), []
    for model in (plain, weighted):
        torch.manual_seed(0)
        loss = model.eval().loss(batch)["loss"]
        loss.backward()
        found.append((loss.item(), model.denoiser.head.weight.grad.norm().item()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert found[1][1] < 0.2 * found[0][1]


def test_the_gap_of_consistency_training_shrinks() -> None:
    class Late(FlowMap):
        step = 0
        total_steps = 100

    model = Late(POINTS, rule="consistency", stages=8, **SMALL)
    assert model.gap() == 0.5, "without a trainer"
    model._trainer, gaps = object(), []
    for model.step in (0, 50, 99):
        gaps.append(model.gap())
    assert gaps == [0.5, 2**-5, 2**-8]
