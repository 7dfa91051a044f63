"""Rectified flow: its pairs are those of the teacher's ODE, and training on them makes the paths straighter."""

import pytest
import torch

import zoo
from tests.contracts.specs import SPECS, examples
from zoo.core.errors import ConfigError
from zoo.core.spaces import Vector
from zoo.data.batch import Batch
from zoo.models.diffusion.diffusion import Diffusion
from zoo.models.diffusion.rectified_flow import RectifiedFlow

NETWORK = {"name": "mlp", "width": 32, "depth": 1}
POINTS = zoo.DataSpec(Vector(2), name="points")
PAIRS = {"name": "reflow", "pairs": 24}


def randomise(model: torch.nn.Module) -> None:
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)


@pytest.mark.parametrize("path", ["linear", "edm"])
def test_pairs_are_the_noise_and_the_sample_that_the_teachers_ode_makes_of_it(path: str) -> None:
    teacher = {"name": "diffusion", "denoiser": NETWORK, "path": path, "sampler": {"name": "heun", "steps": 3}}
    model = RectifiedFlow(SPECS["image"], teacher=teacher, coupling=PAIRS, denoiser=NETWORK)
    randomise(model.teacher)
    model.teacher.standardize.fit(torch.rand(8, 1, 8, 8) / 2)
    noise, x, y = model.make_pairs()
    decoded = model.teacher.decode(noise.flatten(1), y)
    torch.testing.assert_close(model.to_data(x), decoded)
    other = model.teacher.decode(noise.flatten(1).flip(0), y)
    assert not torch.allclose(model.to_data(x), other, atol=0.01), "the control: other noise"
    again = model.make_pairs()
    assert all(torch.equal(one, two) for one, two in zip((noise, x, y), again, strict=True)), "also after a resume"


def test_training_and_validation_see_different_pairs_and_no_data() -> None:
    model = RectifiedFlow(SPECS["image"], teacher={"name": "diffusion", "denoiser": NETWORK}, coupling=PAIRS)
    noise = torch.arange(24.0).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    model.pairs, seen = (noise, noise + 100, torch.arange(24) % 10), []
    model.errors_of = lambda x, y, noise, t, density: seen.append((x, y, noise)) or x.new_zeros(len(x))
    x, y = examples(SPECS["image"], 500)
    model.squared_errors(x, y)
    model.squared_errors(x, y, torch.Generator().manual_seed(0))
    rows = [noise[:, 0, 0, 0].long() for _, _, noise in seen]
    assert set(rows[0].tolist()) == set(range(3, 24))
    assert set(rows[1].tolist()) == set(range(3))
    for (x, y, noise), row in zip(seen, rows, strict=True):
        assert torch.equal(x, noise + 100)
        assert torch.equal(y, row % 10)


def test_a_teacher_that_does_not_fit_is_refused() -> None:
    plain = {"name": "diffusion", "denoiser": NETWORK}
    with pytest.raises(ConfigError, match="the teacher has False"):
        RectifiedFlow(SPECS["image"], teacher={**plain, "conditional": False}, denoiser=NETWORK)
    with pytest.raises(ConfigError, match="without denoise_fn"):
        RectifiedFlow(SPECS["image"], teacher="vae", denoiser=NETWORK)
    with pytest.raises(ConfigError, match="coupling=ot"):
        RectifiedFlow(SPECS["image"], teacher=plain, coupling="ot", denoiser=NETWORK)
    with pytest.raises(ConfigError, match="coupling=reflow"):
        Diffusion(SPECS["image"], coupling="reflow", denoiser=NETWORK)


def test_the_network_starts_from_the_teachers_where_sizes_agree() -> None:
    origin = Diffusion(SPECS["image"], denoiser=NETWORK)
    randomise(origin)
    for network, same in ((NETWORK, True), ({**NETWORK, "width": 8}, False)):
        model = RectifiedFlow(SPECS["image"], teacher={"name": "diffusion", "denoiser": NETWORK}, denoiser=network)
        model.load_pretrained(origin.state_dict())
        assert torch.equal(model.teacher.denoiser.head.weight, origin.denoiser.head.weight)
        assert (model.denoiser.head.weight.abs().sum() > 0) == same


def test_reflow_makes_paths_straight() -> None:
    """One step of Euler's method ends near the ODE's end: nearer than with the teacher."""
    torch.manual_seed(0)
    centres = torch.tensor([[-1.5, 0.0], [1.5, 0.0]])

    def train(model: Diffusion, batches: int) -> None:
        optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), 5e-3)
        for _ in range(batches):
            optimizer.zero_grad()
            x = centres[torch.randint(2, (128,))] + 0.2 * torch.randn(128, 2)
            model.loss(Batch.of(x))["loss"].backward()
            optimizer.step()

    def bend(model: Diffusion) -> float:
        draw = lambda **how: model.sample(500, generator=torch.Generator().manual_seed(0), **how)  # noqa: E731
        one, many = draw(sampler="euler", steps=1), draw(sampler="heun", steps=12)
        return (one - many).square().sum(1).mean().item()

    origin = Diffusion(POINTS, denoiser=NETWORK)
    train(origin, 200)
    model = RectifiedFlow(
        POINTS, teacher={"name": "diffusion", "denoiser": NETWORK}, denoiser=NETWORK,
        coupling={"name": "reflow", "pairs": 2000},
    )  # fmt: skip
    model.load_pretrained(origin.state_dict())
    assert bend(origin) > 0.5
    train(model, 200)
    assert bend(model) < 0.25 * bend(origin)
