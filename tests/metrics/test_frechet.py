"""The Frechet distance against closed forms and an independent matrix square root."""

import numpy as np
import pytest
import torch

from zoo.metrics.frechet import MAX_DIM, frechet, frechet_distance, moments, moments_to_gaussian, random_projection


def covariance(d, rank, seed):
    a = torch.randn(d, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return a @ a.T / rank


def test_scaled_isotropic_gaussians():
    d, shift, s = 7, 0.3, 1.8
    zero, eye = torch.zeros(d), torch.eye(d)
    distance = frechet_distance(zero, eye, zero + shift, s**2 * eye)
    assert float(distance) == pytest.approx(d * shift**2 + d * (1 - s) ** 2, rel=1e-6)


def test_one_dimension():
    m, c = torch.tensor([[1.0], [4.0]]), torch.tensor([[[4.0]], [[25.0]]])
    assert float(frechet_distance(m[0], c[0], m[1], c[1])) == pytest.approx(9 + (2 - 5) ** 2)


@pytest.mark.parametrize(("d", "rank"), [(5, 9), (40, 60), (12, 4)])
def test_agrees_with_a_matrix_square_root(d, rank):
    from scipy.linalg import sqrtm

    a, b = covariance(d, rank, 0), covariance(d, rank, 1)
    mean = torch.randn(2, d, dtype=torch.float64)
    noise = 1e-9 * np.eye(d)  # sqrtm needs full rank
    root = sqrtm((a.numpy() + noise) @ (b.numpy() + noise)).real
    expected = float((mean[0] - mean[1]).square().sum() + a.trace() + b.trace()) - 2 * np.trace(root)
    assert float(frechet_distance(mean[0], a, mean[1], b)) == pytest.approx(expected, rel=1e-4 if rank < d else 1e-8)


def test_identical_and_symmetric():
    x, y = torch.randn(50, 9), torch.randn(60, 9) * 2 + 1
    assert float(frechet(moments(x), moments(x))) < 1e-6
    assert float(frechet(moments(x), moments(y))) == pytest.approx(float(frechet(moments(y), moments(x))), rel=1e-8)


def test_fewer_samples_than_dimensions_is_finite():
    distance = frechet(moments(torch.randn(3, 20)), moments(torch.randn(4, 20)))
    assert torch.isfinite(distance)
    assert distance >= 0


def test_moments_add_up():
    x = torch.randn(100, 5) * 3 + 7
    total = sum(moments(part) for part in x.split(17))
    torch.testing.assert_close(total, moments(x))
    mean, cov = moments_to_gaussian(total)
    torch.testing.assert_close(mean, x.double().mean(0))
    torch.testing.assert_close(cov, torch.cov(x.T.double()))


def test_biased_upwards_by_few_samples():
    """Two samples of one distribution: the distance falls as they grow, towards zero."""
    values = [float(frechet(moments(torch.randn(n, 16)), moments(torch.randn(n, 16)))) for n in (50, 500, 5000)]
    assert values[0] > values[1] > values[2]
    assert values[2] < 0.1


def test_reduction_keeps_small_samples_and_distances_of_large_ones():
    small = torch.rand(4, 1, 8, 8)
    assert torch.equal(random_projection(small), small.flatten(1))
    large = torch.rand(4, 3, 16, 20)
    assert random_projection(large).shape == (4, MAX_DIM)
    assert torch.equal(random_projection(large), random_projection(large))  # the directions are fixed
    axes = random_projection(torch.eye(100))
    torch.testing.assert_close(axes.T @ axes, torch.eye(MAX_DIM), rtol=0, atol=1e-5)
