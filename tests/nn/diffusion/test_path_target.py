"""Paths, targets and weightings against derivatives, inverses and the formulas of the papers."""

import math

import pytest
import torch

from tests.nn.diffusion.gaussian import PATHS
from zoo.nn.diffusion.path import EDM, Linear, Path, Trigonometric, VPCosine
from zoo.nn.diffusion.target import TARGETS, coefficients, determinant, solve
from zoo.nn.diffusion.times import LogitNormal, LogNormal, LogSNR, Uniform, stratified
from zoo.nn.diffusion.weighting import ELBO, EDMWeighting, FromTarget, MinSNR, Simple

T = torch.linspace(0.03, 0.97, 33, dtype=torch.float64)
paths = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


@paths
def test_derivatives_and_inverse(path: Path) -> None:
    t = T.clone().requires_grad_()
    at = path.at(t)
    da, ds = (torch.autograd.grad(c.sum() + 0 * t.sum(), t, retain_graph=True)[0] for c in (at.a, at.s))
    torch.testing.assert_close(at.da, da)
    torch.testing.assert_close(at.ds, ds)
    torch.testing.assert_close(path.time_of(path.at(T).log_snr), T, rtol=0, atol=1e-12)
    assert (path.at(T).log_snr.diff() < 0).all()
    torch.testing.assert_close(at.wronskian, -at.a * at.s / 2 * torch.autograd.grad(at.log_snr.sum(), t)[0])


@paths
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_gives_back_data_and_noise(path: Path, target: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, e, error = torch.randn(3, len(T), 5, dtype=torch.float64, generator=generator)
    at = path.at(T).like(x)
    z, (p, q) = path.mix(x, e, T), coefficients(target, at)
    x_hat, e_hat = solve(p * x + q * e, z, at, target)
    torch.testing.assert_close(x_hat, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(e_hat, e, rtol=1e-9, atol=1e-9)
    # The identity of errors: an error of the output is det / s times that of x, and det / a times that of e.
    x_hat, e_hat = solve(p * x + q * e + error, z, at, target)
    det = determinant(target, at)
    torch.testing.assert_close((det / at.s).abs() * (x_hat - x).abs(), error.abs(), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close((det / at.a).abs() * (e_hat - e).abs(), error.abs(), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(at.a * x_hat + at.s * e_hat, z, rtol=1e-7, atol=1e-7)


def test_edm_is_the_papers_preconditioning() -> None:
    """D(z) = c_skip z + c_out F(c_in z), with sigma_data = 1 (Karras et al. 2022, table 1)."""
    at = EDM().at(T)
    z, output = torch.randn(2, len(T), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = at.s
    expected = z / (sigma**2 + 1) + sigma / (sigma**2 + 1).sqrt() * output
    torch.testing.assert_close(solve(output, z, at, "edm")[0], expected)


def implied(target: str, path: Path, factor: torch.Tensor, density: torch.Tensor) -> torch.Tensor:
    """w(lambda) of the loss factor |output - target|^2: w = factor pi det^2 s / (a W)."""
    at = path.at(T)
    return factor * density * determinant(target, at) ** 2 * at.s / (at.a * at.wronskian)


def test_known_losses_are_the_same_weighting() -> None:
    """v on the trigonometric path and velocity on the linear path are both e^(-lambda / 2); DDPM's loss is sech."""
    one = torch.ones_like(T)
    for target, path in (("v", Trigonometric()), ("velocity", Linear())):
        w = implied(target, path, FromTarget().loss_factor(target, path.at(T), one), one)
        ratio = w * torch.exp(path.at(T).log_snr / 2)
        torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), rtol=1e-10, atol=0)
    path = Trigonometric()
    ratio = implied("eps", path, one, one) * torch.cosh(path.at(T).log_snr / 2)
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), rtol=1e-10, atol=0)


@paths
@pytest.mark.parametrize("weighting", [ELBO(), Simple(), MinSNR(), EDMWeighting()])
def test_a_weighting_is_the_same_loss_for_every_target(path: Path, weighting) -> None:
    """The factor times the squared error of the output is the same number, whatever is predicted."""
    at, one = path.at(T), torch.ones_like(T)
    losses = []
    for target in TARGETS:
        error_of_noise = 1.7
        squared = (determinant(target, at) / at.a * error_of_noise) ** 2
        losses.append(weighting.loss_factor(target, at, one) * squared)
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], rtol=1e-9, atol=0)


class Flipped(MinSNR):
    """The larger of both in place of the smaller."""

    def noise_factor(self, log_snr, rate):
        return (self.gamma * torch.exp(-log_snr)).clamp(min=1)


def test_min_snr_is_the_papers_for_noise_data_and_v() -> None:
    """min(SNR, g) / SNR for eps, min(SNR, g) for x, min(SNR, g) / (SNR + 1) for v (Hang et al. 2023, section 3.4)."""
    path, gamma, one = VPCosine(), 5.0, torch.ones_like(T)
    at = path.at(T)
    snr = at.log_snr.exp()
    clamped = snr.clamp(max=gamma)
    expected = {"eps": clamped / snr, "x": clamped, "v": clamped / (snr + 1)}
    for target, weight in expected.items():
        torch.testing.assert_close(MinSNR(gamma=gamma).loss_factor(target, at, one), weight, rtol=1e-9, atol=0)
        assert not torch.allclose(Flipped(gamma=gamma).loss_factor(target, at, one), weight), "the common mistake"


def test_the_elbo_is_the_integral_over_the_snr() -> None:
    """1/2 (-dSNR/dt) |x_hat - x|^2, in any time sampling (Kingma et al. 2021, equation 12)."""
    for path in (Linear(), VPCosine(), EDM()):
        t = T.clone().requires_grad_()
        slope = -torch.autograd.grad(path.at(t).log_snr.exp().sum(), t)[0]
        one = torch.ones_like(T)
        for density in (one, 2 * one):
            found = ELBO().loss_factor("x", path.at(T), density)
            torch.testing.assert_close(found, slope / 2 / density, rtol=1e-8, atol=0)


def test_velocity_loss_of_x_prediction() -> None:
    """(z - x_hat) / t is the velocity on the linear path (Li & He 2025): the factor is 1 / max(t, .05)^2."""
    factor = FromTarget(of="velocity").loss_factor("x", Linear().at(T), torch.ones_like(T))
    torch.testing.assert_close(factor, T.clamp(min=0.05) ** -2)
    torch.testing.assert_close(FromTarget().loss_factor("x", Linear().at(T), torch.ones_like(T)), torch.ones_like(T))


@paths
@pytest.mark.parametrize("times", [Uniform(), LogitNormal(mean=-0.4, std=0.8), LogNormal(), LogSNR(low=-3.0, high=3.0)])
def test_densities_of_times(path: Path, times) -> None:
    """The density is du/dt of the inverse distribution function, and times grow with u."""
    u = torch.linspace(0.02, 0.98, 49, dtype=torch.float64, requires_grad=True)
    t, density = times.draw(u, path)
    inside = (t > path.first + 1e-4) & (t < path.last - 1e-4)
    slope = torch.autograd.grad(t.sum(), u)[0].abs()
    assert inside.sum() > 20
    torch.testing.assert_close(density[inside], 1 / slope[inside], rtol=1e-6, atol=0)


def test_stratified_times_cover_every_interval() -> None:
    u = stratified(64, torch.Generator().manual_seed(0))
    assert sorted((u * 64).long().tolist()) == list(range(64))
    means = [stratified(64, torch.Generator().manual_seed(seed)).square().mean().item() for seed in range(200)]
    plain = [
        torch.rand(64, generator=torch.Generator().manual_seed(seed)).square().mean().item() for seed in range(200)
    ]
    assert math.isclose(sum(means) / 200, 1 / 3, abs_tol=2e-3)
    assert torch.tensor(means).std() < torch.tensor(plain).std() / 5
