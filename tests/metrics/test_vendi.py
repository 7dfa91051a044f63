"""The Vendi score in closed form and against the Gram matrix."""

import math

import numpy as np
import pytest
import torch

from zoo.metrics.vendi import vendi


@pytest.mark.parametrize("n", [1, 3, 50])
def test_copies_count_once(n):
    assert vendi(torch.randn(1, 7).repeat(n, 1)) == pytest.approx(1)


@pytest.mark.parametrize("times", [1, 4])
def test_orthogonal_directions_count_each(times):
    basis = torch.linalg.qr(torch.randn(9, 9)).Q
    assert vendi(basis.repeat(times, 1) * 5) == pytest.approx(9, rel=1e-5)


def test_uneven_shares_count_by_their_entropy():
    x = torch.eye(3)[[0] * 5 + [1] * 3 + [2] * 2]
    assert vendi(x) == pytest.approx(math.exp(-sum(p * math.log(p) for p in (0.5, 0.3, 0.2))))


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_agrees_with_the_gram_matrix(shape):
    x = torch.randn(shape) + 0.5
    unit = x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True)
    p = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    p = p[p > 1e-12]
    assert vendi(x) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-8)


def test_collapse_lowers_it():
    x = torch.randn(500, 30)
    assert vendi(x) > 25
    assert vendi(x[:5].repeat(100, 1)) == pytest.approx(vendi(x[:5]))
    assert vendi(x[:5]) < 5
