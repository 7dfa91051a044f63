"""Quantisers against k-means, enumeration and closed forms."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.errors import ConfigError
from zoo.core.registry import build
from zoo.nn.quantizers.base import Quantizer
from zoo.nn.quantizers.scalar import FiniteScalarQuantizer, LookupFreeQuantizer
from zoo.nn.quantizers.vq import ResidualQuantizer, VectorQuantizer

ALL = [
    {"name": "vq", "dim": 3, "n_codes": 7},
    {"name": "vq", "dim": 3, "n_codes": 7, "cosine": True},
    {"name": "vq", "dim": 3, "n_codes": 7, "update": "gradient"},
    {"name": "rvq", "dim": 3, "n_codes": 7, "depth": 3},
    {"name": "fsq", "levels": [4, 3, 5]},
    {"name": "lfq", "bits": 3},
    {"name": "lfq", "bits": 3, "sphere": True},
]


def made(config: dict, seed: int = 0) -> Quantizer:
    torch.manual_seed(seed)
    return build("quantizer", config).double()


def points(n: int, dim: int, seed: int = 1) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("config", ALL, ids=str)
def test_indices_give_back_the_vectors(config: dict) -> None:
    quantizer = made(config).eval()
    z = points(5 * 4 * 2, quantizer.dim).view(5, 4, 2, -1).movedim(-1, 1)  # (B, D, 4, 2)
    out = quantizer(z)
    assert out.z.shape == z.shape
    assert out.codes.shape == (5, *quantizer.index_shape((4, 2)))
    assert 0 <= out.codes.min() <= out.codes.max() < quantizer.n_codes
    torch.testing.assert_close(quantizer.lookup(out.codes), out.z, check_dtype=False)
    assert not torch.allclose(quantizer.lookup(out.codes.roll(1, 0)).double(), out.z, atol=1e-3)


@pytest.mark.parametrize("config", ALL, ids=str)
def test_codes_are_fixed_points(config: dict) -> None:
    """A code is its own nearest code; FSQ bounds its input first, so that it needs the inverse of the bound."""
    quantizer = made(config).eval()
    if quantizer.depth > 1:
        pytest.skip("sums of codes may have a nearer first code")
    index = torch.arange(quantizer.n_codes)
    z = quantizer.vectors(index).double()
    if isinstance(quantizer, FiniteScalarQuantizer):
        torch.testing.assert_close(quantizer.quantize(z)[1], index)
        return
    assert torch.equal(quantizer.quantize(quantizer.prepare(z))[1], index)


@pytest.mark.parametrize("config", ALL, ids=str)
def test_the_gradient_passes_straight_through(config: dict) -> None:
    """The gradient at the input is that of the preparation alone, as if nothing were rounded."""
    quantizer = made(config).eval()
    z = points(6, quantizer.dim).view(6, -1, 1).requires_grad_()
    weights = points(6, quantizer.dim, seed=2).view(6, -1, 1)
    (quantizer(z).z * weights).sum().backward()
    free = z.detach().clone().requires_grad_()
    (quantizer.prepare(free.squeeze(2)) * weights.squeeze(2)).sum().backward()
    torch.testing.assert_close(z.grad, free.grad)
    assert z.grad.abs().min() > 0
    rounded = torch.autograd.grad((z.round() * weights).sum(), z)[0]
    assert rounded.abs().max() == 0, "without it there is no gradient"


@pytest.mark.parametrize("config", ALL, ids=str)
def test_bfloat16_gives_the_codes_of_float32(config: dict) -> None:
    torch.manual_seed(0)
    quantizer = build("quantizer", config).eval()
    z = points(64, quantizer.dim).float().bfloat16().view(64, -1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        rough = quantizer(z)
    exact = quantizer(z.float())
    assert torch.equal(rough.codes, exact.codes)
    assert rough.z.dtype == torch.float32
    torch.testing.assert_close(rough.loss, exact.loss)


# -- vector quantisation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cosine", [False, True])
def test_the_nearest_code_by_brute_force(cosine: bool) -> None:
    quantizer = made({"name": "vq", "dim": 4, "n_codes": 30, "cosine": cosine})
    z = points(50, 4)
    found = quantizer.nearest(quantizer.prepare(z))
    distance = torch.cdist(quantizer.prepare(z), quantizer.codebook)
    assert torch.equal(found, distance.argmin(1))
    if cosine:
        assert torch.equal(found, F.cosine_similarity(z[:, None], quantizer.codebook[None], dim=2).argmax(1))
        plain = made({"name": "vq", "dim": 4, "n_codes": 30})  # the same directions, of other lengths
        torch.testing.assert_close(quantizer.prepare(plain.codebook), quantizer.codebook, atol=1e-6, rtol=0)
        assert not torch.equal(found, plain.nearest(z)), "lengths matter without it"


def test_an_average_without_memory_is_a_step_of_k_means() -> None:
    quantizer = made({"name": "vq", "dim": 2, "n_codes": 5, "decay": 0.0, "revive_below": 0.0})
    quantizer.usage.fill_(1)  # the codebook is filled
    z, before = points(200, 2), quantizer.codebook.clone()
    near = torch.cdist(z, before).argmin(1)
    quantizer.quantize(z)
    for code in range(5):
        torch.testing.assert_close(quantizer.codebook[code], z[near == code].mean(0))
    other = made({"name": "vq", "dim": 2, "n_codes": 5, "decay": 0.5, "revive_below": 0.0})
    other.usage.fill_(1)
    other.quantize(z)
    assert not torch.allclose(other.codebook, quantizer.codebook), "memory makes a difference"


def test_averages_remember_by_their_decay() -> None:
    quantizer = made({"name": "vq", "dim": 2, "n_codes": 3, "decay": 0.9, "revive_below": 0.0})
    quantizer.usage.fill_(1)
    usage, total = quantizer.usage.clone(), quantizer.total.clone()
    for seed in range(4):
        z = points(60, 2, seed)
        near = torch.cdist(z, quantizer.codebook).argmin(1)
        hits = F.one_hot(near, 3).double()
        usage, total = 0.9 * usage + 0.1 * hits.sum(0), 0.9 * total + 0.1 * hits.T @ z
        quantizer.quantize(z)
        torch.testing.assert_close(quantizer.usage, usage)
        torch.testing.assert_close(quantizer.codebook, total / usage[:, None])


def test_repeated_steps_reach_a_fixed_point_of_k_means() -> None:
    centers = 5 * F.one_hot(torch.arange(4), 4).double()
    z = centers.repeat_interleave(50, 0) + 0.1 * points(200, 4)
    quantizer = made({"name": "vq", "dim": 4, "n_codes": 4, "decay": 0.5})
    for _ in range(60):
        quantizer.quantize(z)
    means = torch.stack([part.mean(0) for part in z.split(50)])
    nearest = torch.cdist(quantizer.codebook, means).min(1)
    assert nearest.values.max() < 0.05
    assert nearest.indices.unique().numel() == 4


def test_dead_codes_are_revived() -> None:
    """All codes are far away from the data; with revival they are all among them, without it one is in use."""
    z = points(400, 2)
    found = {}
    for below in (0.1, 0.0):
        quantizer = made({"name": "vq", "dim": 2, "n_codes": 16, "decay": 0.8, "revive_below": below})
        quantizer.codebook.copy_(100 + torch.arange(16.0)[:, None])
        quantizer.usage.fill_(1e-3)
        quantizer.total.copy_(1e-3 * quantizer.codebook)
        for _ in range(50):
            index = quantizer.quantize(z)[1]
        found[below] = index.unique().numel()
    assert found[0.1] == 16
    assert found[0.0] == 1


def test_the_first_batch_fills_the_codebook_and_evaluation_changes_nothing() -> None:
    quantizer = made({"name": "vq", "dim": 2, "n_codes": 8})
    z = 50 + points(100, 2)
    before = quantizer.eval().codebook.clone()
    quantizer.quantize(z)
    assert torch.equal(quantizer.codebook, before)
    quantizer.train()
    quantizer.quantize(z)
    assert torch.cdist(quantizer.codebook, z).min(1).values.max() < 2


def test_losses_of_the_codebook_and_the_encoder() -> None:
    """Equation 3 of the paper: each of the two terms moves one side only."""
    quantizer = made({"name": "vq", "dim": 3, "n_codes": 5, "update": "gradient", "commitment": 0.25}).eval()
    z = points(10, 3).requires_grad_()
    code, index, loss = quantizer.quantize(z)
    loss.backward()
    distance = (z - quantizer.codebook[index]).square().sum()
    torch.testing.assert_close(loss, 1.25 * distance)
    torch.testing.assert_close(z.grad, 0.25 * 2 * (z - code).detach())
    hits = F.one_hot(index, 5).double()
    torch.testing.assert_close(quantizer.codebook.grad, 2 * hits.T @ (code - z).detach())


def test_residual_quantisation_gets_better_with_depth() -> None:
    z = points(2000, 4)
    quantizer = made({"name": "rvq", "dim": 4, "n_codes": 16, "depth": 4, "decay": 0.8})
    for _ in range(40):
        quantizer.quantize(z)
    quantizer.eval()
    index = quantizer.quantize(z)[1]
    parts = torch.stack([layer.vectors(one) for layer, one in zip(quantizer.layers, index.unbind(1), strict=True)])
    errors = (z - parts.cumsum(0)).square().sum(2).mean(1)  # after each codebook
    assert (errors.diff() < -0.05 * errors[:-1]).all(), errors
    torch.testing.assert_close(parts.sum(0), quantizer.vectors(index))
    one = made({"name": "vq", "dim": 4, "n_codes": 64, "decay": 0.8})
    for _ in range(40):
        one.quantize(z)
    assert errors[-1] < (z - one.eval().quantize(z)[0]).square().sum(1).mean(), "64 codes in one book are fewer"


# -- scalar quantisers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [[2], [3], [8, 5, 5], [2, 7, 4]], ids=str)
def test_codes_and_indices_are_a_bijection(levels: list[int]) -> None:
    """All combinations of levels occur once, in mixed radix with the first coordinate lowest."""
    quantizer = FiniteScalarQuantizer(levels=tuple(levels))
    index = torch.arange(math.prod(levels))
    codes = quantizer.vectors(index)
    assert len(codes.unique(dim=0)) == len(index) == quantizer.n_codes
    digits = torch.tensor(list(itertools.product(*map(range, levels[::-1])))).flip(1)
    half = torch.tensor([n // 2 for n in levels])
    torch.testing.assert_close(codes, (digits - half) / half)
    assert torch.equal(quantizer.quantize(codes)[1], index)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8])
def test_a_coordinate_takes_each_of_its_levels(n: int) -> None:
    quantizer = FiniteScalarQuantizer(levels=(n,)).double()
    z = torch.linspace(-20, 20, 4001, dtype=torch.float64).view(1, 1, -1)
    out = quantizer(z)
    assert torch.equal(out.codes.unique(), torch.arange(n))
    assert (out.z.diff() >= -1e-12).all(), "in the order of the coordinate"
    inside = quantizer.bound(torch.zeros(1, 1, dtype=torch.float64))
    assert inside.abs().item() < 1e-9 if n % 2 else abs(inside.item()) < 1e-9


def test_too_many_codes_are_refused() -> None:
    with pytest.raises(ConfigError, match="Choose fewer levels"):
        FiniteScalarQuantizer(levels=(2**11, 2**11, 2**11))


@pytest.mark.parametrize("sphere", [False, True])
def test_entropies_by_enumeration(sphere: bool) -> None:
    """The soft assignment is softmax(-|z - c|^2 / t) over all 2^5 codes."""
    quantizer = LookupFreeQuantizer(bits=5, sphere=sphere, temperature=0.7).double()
    z = quantizer.prepare(points(40, 5))
    codes = quantizer.vectors(torch.arange(32)).double()
    p = (-torch.cdist(z, codes).square() / 0.7).softmax(1)  # (N, 32)
    of_one = torch.special.entr(p).sum(1).mean()
    of_mean = torch.special.entr(p.mean(0)).sum()
    torch.testing.assert_close(torch.stack(quantizer.entropies(z)), torch.stack([of_one, of_mean]))
    factorised = sum(
        torch.special.entr(torch.stack([q, 1 - q])).sum() for q in (4 * quantizer.size / 0.7 * z).sigmoid().mean(0)
    )
    assert factorised > of_mean + 1e-3, "the mean of products is not the product of means"


def test_groups_of_bits_bound_the_joint_entropy() -> None:
    quantizer = LookupFreeQuantizer(bits=11).double()
    z = 0.5 * points(20, 1).expand(20, 11)  # bits depend on each other
    codes = quantizer.vectors(torch.arange(2**11)).double()
    joint = torch.special.entr((-torch.cdist(z, codes).square()).softmax(1).mean(0)).sum()
    of_mean = quantizer.entropies(z)[1]
    assert joint < of_mean <= 11 * math.log(2) + 1e-9


def test_the_entropy_loss_uses_all_codes_and_makes_them_sure() -> None:
    """Vectors that collapse to one code spread over all of them; without the term of diversity they do not."""
    used = {}
    for diversity in (1.0, 0.0):
        quantizer = LookupFreeQuantizer(bits=3, commitment=0.0, entropy=1.0, diversity=diversity).double()
        z = (0.5 + 0.1 * points(64, 3)).requires_grad_()
        optimizer = torch.optim.SGD([z], 1.0)
        for _ in range(100):
            optimizer.zero_grad()
            (quantizer.quantize(z)[2] / len(z)).backward()
            optimizer.step()
        used[diversity] = quantizer.quantize(z)[1].unique().numel()
    assert used == {1.0: 8, 0.0: 1}


@pytest.mark.parametrize("sphere", [False, True])
def test_bits_are_signs(sphere: bool) -> None:
    quantizer = LookupFreeQuantizer(bits=6, sphere=sphere)
    z = points(30, 6)
    code, index, _ = quantizer.quantize(quantizer.prepare(z))
    assert torch.equal(code > 0, z > 0)
    assert torch.equal(index, sum((z[:, bit] > 0).long() << bit for bit in range(6)))
    torch.testing.assert_close(code.norm(dim=1), torch.full((30,), 1.0 if sphere else 6**0.5, dtype=code.dtype))


def test_all_are_registered_with_their_bounds() -> None:
    with pytest.raises(ConfigError, match="n_codes"):
        build("quantizer", {"name": "vq", "n_codes": 0})
    with pytest.raises(ConfigError, match="levels"):
        build("quantizer", {"name": "fsq", "levels": [8, 1]})
    assert isinstance(build("quantizer", "rvq"), ResidualQuantizer)
    assert isinstance(build("quantizer", "vq"), VectorQuantizer)
