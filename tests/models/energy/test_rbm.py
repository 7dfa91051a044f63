"""The restricted Boltzmann machine against sums over all states."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.image.digits import Digits
from zoo.models.energy.rbm import RBM


def tiny(levels: int = 3, **options) -> RBM:
    """Four pixels and three hidden units, far from independent."""
    torch.manual_seed(0)
    model = RBM(DataSpec(Image(1, 2, 2, levels=levels), name="tiny"), n_hidden=3, **options).double()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.9)
    return model


def states(model: RBM) -> Tensor:
    """All images as levels (K^D, D)."""
    return torch.tensor(list(itertools.product(range(model.levels), repeat=model.spec.size)))


def energy(model: RBM, x: Tensor, h: Tensor) -> Tensor:
    """E(v, h) by its definition, for one image and one hidden state."""
    table, bias = model.weight.view(-1, model.levels, 3), model.visible_bias.view(-1, model.levels)
    total = -(model.hidden_bias * h).sum()
    for pixel, level in enumerate(x.tolist()):
        total = total - bias[pixel, level] - (table[pixel, level] * h).sum()
    return total


@pytest.mark.parametrize("levels", [2, 3])
@torch.no_grad()
def test_free_energy_and_partition_function_are_sums_over_the_hidden_units(levels: int) -> None:
    model = tiny(levels)
    hidden = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    joint = torch.stack([torch.stack([-energy(model, x, h) for h in hidden]) for x in states(model)])
    torch.testing.assert_close(model.free_energy(states(model)), -joint.logsumexp(1))
    torch.testing.assert_close(model.log_partition(), joint.logsumexp((0, 1)))
    mass = model.log_prob(model.to_images(states(model).double())).exp()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-12)
    model.hidden_bias[0] += 0.1  # negative control
    assert not torch.allclose(model.free_energy(states(model)), -joint.logsumexp(1), atol=1e-3)


def transitions(model: RBM) -> Tensor:
    """Probability of each image after one Gibbs step from each other one."""
    x = states(model)
    on = model.hidden_logits(model.indicators(x)).sigmoid()  # (N, H)
    matrix = torch.zeros(len(x), len(x), dtype=torch.float64)
    for h in itertools.product([0.0, 1.0], repeat=3):
        given = torch.tensor([h], dtype=torch.float64)
        of_h = torch.where(given == 1, on, 1 - on).prod(1)
        of_x = model.visible_logits(given).log_softmax(2)[0].gather(1, x.T).sum(0).exp()
        matrix += of_h[:, None] * of_x
    return matrix


@torch.no_grad()
def test_a_gibbs_step_keeps_the_distribution_and_draws_from_its_conditionals() -> None:
    model, x = tiny(), states(tiny())
    p, matrix = (-model.free_energy(x) - model.log_partition()).exp(), transitions(model)
    torch.testing.assert_close(matrix.sum(1), torch.ones(len(x), dtype=torch.float64))
    torch.testing.assert_close(p @ matrix, p)
    model.visible_bias *= 0.5
    assert not torch.allclose(p @ transitions(model), p, atol=1e-3)  # negative control: of another model

    model, n = tiny(), 20_000
    start = x[7:8].expand(n, -1)
    code = model.run_chains(start, 1) @ torch.tensor([27, 9, 3, 1])
    shares = torch.bincount(code, minlength=81).double() / n
    error = (matrix[7] * (1 - matrix[7]) / n).sqrt()
    assert ((shares - matrix[7]).abs() < 4.5 * error + 1e-12).all()


@torch.no_grad()
def test_samples_have_the_exact_frequencies() -> None:
    model, n = tiny(), 20_000
    p = (-model.free_energy(states(model)) - model.log_partition()).exp()
    drawn = model.levels_of(model.sample(n, steps=60, generator=torch.Generator().manual_seed(0)))
    shares = torch.bincount(drawn @ torch.tensor([27, 9, 3, 1]), minlength=81).double() / n
    error = (p * (1 - p) / n).sqrt()
    assert ((shares - p).abs() < 4.5 * error).all()
    early = model.levels_of(model.sample(n, steps=1, generator=torch.Generator().manual_seed(0)))
    shares = torch.bincount(early @ torch.tensor([27, 9, 3, 1]), minlength=81).double() / n
    assert ((shares - p).abs() > 4.5 * error).any()  # negative control: one step has not mixed
    few = model.sample(3, steps=60, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.levels_of(few), drawn[:3])


def gradient(loss: Tensor, model: RBM) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def test_with_samples_of_the_model_the_gradient_is_that_of_the_likelihood() -> None:
    """Exactly for the sum over all images; within its error for long chains; not after one step from the data."""
    model, x = tiny(), states(tiny())
    data = x[torch.tensor([3, 50, 50, 77])]
    exact = gradient(model.free_energy(data).mean() + model.log_partition(), model)
    p = (-model.free_energy(x) - model.log_partition()).exp().detach()
    expected = gradient(model.free_energy(data).mean() - (p * model.free_energy(x)).sum(), model)
    torch.testing.assert_close(expected, exact)

    def estimates(steps: int, repeats: int = 150) -> Tensor:
        model.k, model.negative = steps, "cd"
        images = model.to_images(data.double()).repeat(50, 1, 1, 1)
        return torch.stack([gradient(model.loss((images, None))["loss"], model) for _ in range(repeats)])

    for steps, right in ((40, True), (1, False)):
        found = estimates(steps)
        error = found.std(0) / math.sqrt(len(found))
        assert bool(((found.mean(0) - exact).abs() < 4.5 * error + 1e-9).all()) == right


@torch.no_grad()
def test_pseudo_likelihood_is_the_sum_of_conditionals(monkeypatch) -> None:
    model = tiny()
    expected = torch.zeros(5, dtype=torch.float64)
    x = states(model)[[0, 11, 34, 60, 80]]
    for row, image in enumerate(x):
        for pixel in range(4):
            others = image.repeat(3, 1)
            others[:, pixel] = torch.arange(3)
            expected[row] += (-model.free_energy(others)).log_softmax(0)[image[pixel]]
    torch.testing.assert_close(model.pseudo_log_likelihood(x), expected)
    monkeypatch.setattr("zoo.models.energy.rbm.VALUES", 1)
    torch.testing.assert_close(model.pseudo_log_likelihood(x), expected)  # in chunks
    torch.testing.assert_close(model.log_partition(), tiny().log_partition())


def test_persistent_chains_go_on_in_training_only() -> None:
    model = tiny(negative="pcd", n_chains=8)
    before, x = model.chains.clone(), torch.rand(5, 1, 2, 2)
    model.eval().loss((x, None))
    assert torch.equal(model.chains, before)
    model.train().loss((x, None))
    assert not torch.equal(model.chains, before)
    assert tiny(negative="cd").chains.shape == (0, 4)


def test_training_raises_the_exact_likelihood_above_that_of_independent_pixels() -> None:
    data = Digits()
    data.setup()
    x = data.train[0][:256]
    torch.manual_seed(0)
    model = RBM(data.spec, n_hidden=8)
    model.fit_bias(x)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(300):
        optimizer.zero_grad()
        model.loss((x, None))["loss"].backward()
        optimizer.step()
    shares = torch.nn.functional.one_hot(model.levels_of(x), 17).double().mean(0)
    independent = float(torch.special.entr(shares).sum())  # the best without hidden units
    assert -float(model.log_prob(x).mean()) < independent - 3


def test_many_hidden_units_have_no_exact_likelihood() -> None:
    model = RBM(DataSpec(Image(1, 4, 4, levels=2)), n_hidden=17)
    assert not {"likelihood", "log_prob"} & set(model.abilities)
    with pytest.raises(ZooError, match="n_hidden=17: too many states"):
        model.log_prob(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ZooError, match="has 256 levels"):
        RBM(DataSpec(Image(1, 4, 4)))
