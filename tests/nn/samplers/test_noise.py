"""A sample's random numbers belong to its index: more samples do not change the first ones."""

import pytest
import torch

from tests.contracts.specs import CASES, SPECS, examples, make, one_case_of_each_class
from zoo.models.abilities import SupportsSampling
from zoo.models.ability import supports
from zoo.models.autoregressive.base import AutoregressiveModel
from zoo.models.autoregressive.pixelcnn import PixelCNN
from zoo.models.baselines.base import Fitted
from zoo.models.latent_density import LatentDensity
from zoo.nn.distributions.likelihoods import Gaussian
from zoo.nn.samplers.noise import fork, normal

BY_INDEX = one_case_of_each_class((name, key) for name, key in CASES if key in ("image", "vector"))
NUMBERS = (1, 4, 9, 33)


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(), (1,), (2,), (5, 3), (16,)])
def test_normal_numbers(shape) -> None:
    most = normal(50, *shape, generator=seeded())
    assert all(torch.equal(normal(n, *shape, generator=seeded()), most[:n]) for n in range(50))
    many = normal(20_000, *shape, generator=seeded())
    assert abs(float(many.mean())) < 5 / many.numel() ** 0.5
    assert abs(float(many.var()) - 1) < 5 * (2 / many.numel()) ** 0.5


def test_forks() -> None:
    source = seeded()
    one, same, other = (torch.rand(8, generator=fork(source, name)) for name in ("a", "a", "b"))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.rand(8, generator=source), torch.rand(8, generator=seeded())), "it is not advanced"
    assert not torch.equal(torch.rand(8, generator=fork(source, "a")), one), "the next samples get others"
    torch.manual_seed(3)
    assert torch.equal(torch.rand(8, generator=fork(None, "a")), torch.rand(8, generator=fork(seeded(), "a")))


@pytest.mark.parametrize(("name", "key"), BY_INDEX)
def test_the_first_samples_are_equal_for_every_number(name: str, key: str) -> None:
    model = make(name, key).eval()
    if not supports(model, SupportsSampling) or isinstance(model, (AutoregressiveModel, PixelCNN)):
        pytest.skip("tokens are drawn for all rows together")
    if isinstance(model, Fitted):
        model.fit(model.statistics(examples(SPECS[key], 60)))
    if isinstance(model, LatentDensity) and model.density is not None:
        model.density.fit(model.latents_to_fit(examples(SPECS[key], 60)))
    drawn = {n: model.sample(n, generator=seeded()) for n in NUMBERS}
    for n in NUMBERS[:-1]:
        torch.testing.assert_close(drawn[n], drawn[NUMBERS[-1]][:n], rtol=1e-4, atol=1e-4)


def test_values_of_a_likelihood() -> None:
    likelihood = Gaussian(SPECS["vector"])
    params = torch.zeros(9, 2)
    draws = [likelihood.sample(params[:n], seeded()) for n in (4, 9)]
    assert torch.equal(draws[0], draws[1][:4])
