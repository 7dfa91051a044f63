"""Reconstruction errors in closed form, and SSIM against a loop over windows."""

import math

import numpy as np
import pytest
import torch

from zoo.metrics import reconstruction as module
from zoo.metrics.reconstruction import reconstruction


def loop(x, y, sigma, reach):
    """Wang's formula, window by window, around every pixel of images that are reflected at their edges."""
    g = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    window = np.outer(g, g) / g.sum() ** 2
    x, y = (
        np.pad(t.double().numpy(), [(0, 0), (0, 0), (reach, reach), (reach, reach)], mode="reflect") for t in (x, y)
    )
    values = []
    for a, b in zip(x.reshape(-1, *x.shape[2:]), y.reshape(-1, *y.shape[2:]), strict=True):
        for i, j in np.ndindex(a.shape[0] - 2 * reach, a.shape[1] - 2 * reach):
            p, q = a[i : i + len(g), j : j + len(g)], b[i : i + len(g), j : j + len(g)]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            top = (2 * mp * mq + 0.01**2) * (2 * cov + 0.03**2)
            values.append(top / ((mp**2 + mq**2 + 0.01**2) * (vp + vq + 0.03**2)))
    return np.mean(values)


@pytest.mark.parametrize(
    ("shape", "sigma", "reach"),
    [
        ((3, 1, 8, 8), 1.5, 5),
        ((2, 2, 13, 9), 1.5, 5),
        ((2, 1, 6, 10), 1.5, 5),
        ((2, 1, 4, 7), 3.4 / 3.6, 3),
        ((3, 1, 2, 2), 1.4 / 3.6, 1),
    ],
)
def test_ssim_agrees_with_a_loop(shape, sigma, reach, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_SIZE", 2)  # the last part is smaller
    x = torch.rand(shape)
    again = (x + 0.3 * torch.randn(shape)).clamp(0, 1)
    assert reconstruction(x, again)["ssim"] == pytest.approx(loop(x, again, sigma, reach), abs=1e-9)


@pytest.mark.parametrize("size", [1, 3, 8, 28])
def test_identity(size):
    x = torch.rand(5, 1, size, size)
    assert reconstruction(x, x) == {"mse": 0, "psnr": math.inf, "ssim": pytest.approx(1)}


def test_constant_images_shifted():
    """mse .01 is 20 dB; without variance SSIM is its first factor, of means .4 and .5."""
    x = torch.full((4, 3, 16, 16), 0.4)
    expected = {"mse": 0.01, "psnr": 20, "ssim": (2 * 0.4 * 0.5 + 1e-4) / (0.4**2 + 0.5**2 + 1e-4)}
    assert reconstruction(x, x + 0.1) == pytest.approx(expected, rel=1e-5)


def test_psnr_is_that_of_the_mean_error():
    """Errors .1 and .3: mse .05, not the mean of 20 and 10.46 dB."""
    x = torch.zeros(2, 1, 8, 8)
    again = x + torch.tensor([0.1, 0.3])[:, None, None, None]
    assert reconstruction(x, again)["psnr"] == pytest.approx(-10 * math.log10(0.05), rel=1e-6)


def test_vectors_have_an_mse_only():
    assert reconstruction(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 0.0]])) == {"mse": 2.5}


def test_ssim_sees_structure_that_the_mse_does_not():
    """Noise and a shift of equal mse: the shift looks alike, the noise does not."""
    x = torch.rand(8, 1, 28, 28) * 0.5
    shifted, noisy = x + 0.1, x + 0.1 * (torch.rand_like(x) > 0.5).float().mul(2).sub(1)
    a, b = reconstruction(x, shifted), reconstruction(x, noisy)
    assert a["mse"] == pytest.approx(b["mse"], rel=1e-5)
    assert a["ssim"] > b["ssim"] + 0.05
