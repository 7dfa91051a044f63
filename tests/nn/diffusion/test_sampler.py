"""Samplers against the exact flow of a Gaussian, and DDPM against its textbook form."""

import math
import weakref
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.nn.diffusion.gaussian import (
    CENTRES,
    MEAN,
    PATHS,
    VARIANCE,
    gaussian_denoiser,
    gaussian_flow,
    mixture_denoiser,
)
from zoo.nn.diffusion.guidance import clipped, conjugate_gradients, guided, posterior
from zoo.nn.diffusion.likelihood import prior_scale
from zoo.nn.diffusion.path import EDM, VE, Linear, Path, Trigonometric, VPCosine, VPLinear
from zoo.nn.diffusion.sampler import (
    DDIM,
    DDPM,
    Adaptive,
    DPMpp2M,
    DPMpp2MSDE,
    Euler,
    Heun,
    Run,
    Sampler,
    UniPC,
    time_grid,
)
from zoo.nn.diffusion.target import TARGETS, coefficients

Z = torch.tensor([[1.0, -0.7], [0.2, 0.4]], dtype=torch.float64)


def last_state(sampler: Sampler, denoise, z: Tensor, path: Path, times: Tensor, generator=None) -> Tensor:
    randn = lambda: torch.randn(z.shape, dtype=z.dtype, generator=generator)  # noqa: E731
    plan = [path.number(t) for t in times.tolist()]
    for state, _ in sampler.run(denoise, z, path, plan, randn):
        z = state
    return z


def order(sampler: Sampler, path: Path, begin: float = 0.9, end: float = 0.1) -> float:
    """Order of the global error between 64 and 128 steps."""
    errors = []
    for n in (64, 128):
        times = torch.linspace(begin, end, n + 1, dtype=torch.float64)
        found = last_state(sampler, gaussian_denoiser(path), Z, path, times)
        errors.append((found - gaussian_flow(path, Z, begin, end)).abs().max().item())
    return math.log2(errors[0] / errors[1])


SOLVERS = [(Euler(), 1), (DDIM(), 1), (Heun(), 2), (DPMpp2M(), 2), (UniPC(), 3)]
SMOOTH = [Linear(), Trigonometric(), VPLinear(), VE(sigma_max=20.0)]


@pytest.mark.parametrize(("sampler", "expected"), SOLVERS, ids=lambda v: getattr(v, "registered_name", v))
@pytest.mark.parametrize("path", SMOOTH, ids=lambda path: path.registered_name)
def test_orders(sampler: Sampler, expected: int, path: Path) -> None:
    """Euler and DDIM have order 1, Heun and DPM-Solver++(2M) 2, UniPC's corrector 3; in both directions of time."""
    assert order(sampler, path) == pytest.approx(expected, abs=0.35)
    assert order(sampler, path, 0.1, 0.9) == pytest.approx(expected, abs=0.35)


def test_a_wrong_second_stage_loses_the_order() -> None:
    """Negative control: Heun with both slopes at the old time is Euler."""

    class Wrong(Heun):
        def step(self, z, x, e, at, to, run):
            return super().step(z, x, e, at, to._replace(da=at.da, ds=at.ds), Run(lambda *_: (x, e), run.randn))

    assert order(Wrong(), Trigonometric()) < 1.3


def variance_error(sampler: Sampler, path: Path, n: int, begin: float = 0.9, end: float = 0.1) -> float:
    """Relative error of the variance of n steps, without sampling: the state is affine in its start and every noise.

    Row 0 has no noise. Each other row has one: one deviation of the start, or a one in the noise of one step.
    """
    at, to = path.number(begin), path.number(end)
    z, count = (at.a * MEAN).repeat(n + 2, 1), iter(range(2, n + 2))
    z[1] += (at.a**2 * VARIANCE + at.s**2).sqrt()

    def one_row() -> Tensor:
        noise = torch.zeros_like(z)
        noise[next(count)] = 1
        return noise

    plan = [path.number(t) for t in torch.linspace(begin, end, n + 1, dtype=torch.float64).tolist()]
    for state, _ in sampler.run(gaussian_denoiser(path), z, path, plan, one_row):
        last = state
    torch.testing.assert_close(last[0], to.a * MEAN)
    variance = (last[1:] - last[0]).square().sum(0)
    return (variance / (to.a**2 * VARIANCE + to.s**2) - 1).abs().max().item()


STOCHASTIC = [(DDPM(), 1), (DDIM(eta=0.5), 1), (DPMpp2MSDE(), 2)]


@pytest.mark.parametrize(("sampler", "expected"), STOCHASTIC, ids=lambda v: getattr(v, "registered_name", v))
@pytest.mark.parametrize("path", SMOOTH, ids=lambda path: path.registered_name)
def test_orders_of_the_variance_of_stochastic_samplers(sampler: Sampler, expected: int, path: Path) -> None:
    """Of DDPM's recursion 1, of DPM-Solver++(2M) on the SDE 2; without its last estimate that one has order 1 too."""
    errors = [variance_error(sampler, path, n) for n in (64, 128)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=0.15)

    class Forgetful(DPMpp2MSDE):
        def extrapolated(self, x, at, h, run):
            return x

    if expected == 2:
        errors = [variance_error(Forgetful(), path, n) for n in (64, 128)]
        assert math.log2(errors[0] / errors[1]) < 1.2, "the control"


def test_the_last_step_to_no_noise_is_the_estimate() -> None:
    """At s = 0 a second evaluation would divide by zero, as one of Heun's method that takes its full step does."""

    class IntoZero(Heun):
        def run(self, denoise, z, path, plan, randn):
            run = Run(denoise, randn)
            for at, to in pairwise(plan):
                x, e = run.estimate(z, at)
                z = self.step(z, x, e, at, to, run)
                yield z, x

    path = Linear()
    assert path.at(torch.tensor(path.first)).s == 0
    times = time_grid(path, 8)
    assert last_state(Heun(), mixture_denoiser(path), Z, path, times).isfinite().all()
    assert not last_state(IntoZero(), mixture_denoiser(path), Z, path, times).isfinite().any(), "the control"


# Euler in time needs many more steps where the noise grows to a hundred.
WHOLE = [(path, s) for path in PATHS.values() for s in (Heun(), DDIM(), DPMpp2M(), UniPC(), Adaptive())]
WHOLE += [(path, Euler()) for name, path in PATHS.items() if name not in ("ve", "edm")]


@pytest.mark.parametrize(("path", "sampler"), WHOLE, ids=lambda v: v.registered_name)
def test_from_noise_to_data(path: Path, sampler: Sampler) -> None:
    """From the first to the last time, no value is infinite, and the Gaussian's mean and variance come out."""
    z = torch.randn(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = (z - z.mean(0)) / z.std(0)
    z = z * prior_scale(path)
    times = time_grid(path, 64, "log_snr" if path.registered_name in ("ve", "edm") else "time")
    x = last_state(sampler, gaussian_denoiser(path), z, path, times)
    assert x.isfinite().all()
    torch.testing.assert_close(x.mean(0), MEAN, rtol=0, atol=0.03)
    torch.testing.assert_close(x.std(0), VARIANCE.sqrt(), rtol=0.12, atol=0)


@pytest.mark.parametrize("sampler", [DDPM(steps=400), DPMpp2MSDE(steps=60), DDIM(steps=100, eta=0.5)])
@pytest.mark.parametrize("path", [Linear(), VPLinear()], ids=["linear", "vp_linear"])
def test_stochastic_samplers_keep_the_distribution(path: Path, sampler: Sampler) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6000, 2, dtype=torch.float64, generator=generator)
    x = last_state(sampler, mixture_denoiser(path), z, path, time_grid(path, sampler.steps, "log_snr"), generator)
    nearest = (x[:, None] - CENTRES).square().sum(-1).argmin(1)
    shares = torch.bincount(nearest, minlength=3) / len(x)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), rtol=0, atol=0.03)
    spread = torch.stack([x[nearest == k].std(0) for k in range(3)])
    torch.testing.assert_close(spread, torch.full_like(spread, 0.3), rtol=0.1, atol=0)


@pytest.mark.parametrize("sampler", [DDPM(steps=9), DPMpp2M(steps=9), UniPC(steps=9)])
def test_earlier_estimates_are_freed(sampler: Sampler) -> None:
    """A long chain of large samples once kept the estimate of every step."""
    path, made = Linear(), []
    exact = gaussian_denoiser(path)

    def denoise(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        x, e = exact(z, t)
        made.append(weakref.ref(x))
        return x, e

    most = 0
    for _ in sampler.run(denoise, Z, path, sampler.plan(path), lambda: torch.zeros_like(Z)):
        most = max(most, sum(ref() is not None for ref in made))
    assert len(made) == 9
    assert 1 <= most <= 3


def test_ddim_with_eta_1_is_ddpms_posterior() -> None:
    """q(z_s | z_t, x) of the textbook, in alphas and betas (Ho et al. 2020, equations 6 and 7)."""
    path, generator = VPCosine(), torch.Generator().manual_seed(0)
    now, to = path.number(0.6), path.number(0.55)
    x, z, n = torch.randn(3, 7, dtype=torch.float64, generator=generator)
    e = (z - now.a * x) / now.s
    alpha_bar, alpha_bar_before = now.a**2, to.a**2
    alpha = alpha_bar / alpha_bar_before
    beta = 1 - alpha
    mean = (
        alpha_bar_before**0.5 * beta / (1 - alpha_bar) * x + alpha**0.5 * (1 - alpha_bar_before) / (1 - alpha_bar) * z
    )
    variance = beta * (1 - alpha_bar_before) / (1 - alpha_bar)
    step = lambda noise: DDPM().step(z, x, e, now, to, Run(None, lambda: noise))  # noqa: E731
    torch.testing.assert_close(step(torch.zeros(7, dtype=torch.float64)), mean, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(step(n) - mean, variance**0.5 * n, rtol=1e-10, atol=1e-12)


def test_ddim_is_euler_in_noise_over_signal() -> None:
    """z / a moves by e d(s / a) on every path; in t it is Euler's method on the linear path only."""
    for path in PATHS.values():
        now, to = (path.number(t) for t in (0.6, 0.5))
        x, e = gaussian_denoiser(path)(Z, now.t)
        ddim = DDIM().step(Z, x, e, now, to, None)
        torch.testing.assert_close(ddim / to.a, Z / now.a + (to.s / to.a - now.s / now.a) * e, rtol=1e-11, atol=1e-12)
    now, to = (Linear().number(t) for t in (0.6, 0.5))
    x, e = gaussian_denoiser(Linear())(Z, now.t)
    torch.testing.assert_close(Euler().step(Z, x, e, now, to, None), DDIM().step(Z, x, e, now, to, None))
    now, to = (Trigonometric().number(t) for t in (0.6, 0.5))
    x, e = gaussian_denoiser(Trigonometric())(Z, now.t)
    difference = Euler().step(Z, x, e, now, to, None) - DDIM().step(Z, x, e, now, to, None)
    assert difference.abs().max() > 1e-3


def test_a_trained_network_can_be_sampled_on_another_path() -> None:
    """A denoiser of one path, asked at the same log-SNR with z rescaled, is that of another path."""
    old, new = Linear(), VPLinear()

    def moved(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        at = new.number(t)
        t_old = old.time_of(torch.tensor(at.log_snr, dtype=torch.float64)).item()
        return gaussian_denoiser(old)(z * old.number(t_old).s / at.s, t_old)

    for mine, theirs in zip(moved(Z, 0.4), gaussian_denoiser(new)(Z, 0.4), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("grid", ["time", "karras", "log_snr"])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_grids_fall_from_the_last_to_the_first_time(path: Path, grid: str) -> None:
    for shift in (1.0, 3.0):
        times = time_grid(path, 10, grid, shift)
        assert len(times) == 11
        assert times[0] == path.last
        assert times[-1] == path.first
        assert (times.diff() < 0).all()
    assert (time_grid(path, 10, grid, 3.0)[1:-1] > time_grid(path, 10, grid)[1:-1]).all()


def test_karras_grid_is_edms() -> None:
    """Uniform times of the EDM path are equation 5 of Karras et al. 2022."""
    path = EDM(sigma_min=0.002, sigma_max=80.0)
    u = torch.linspace(0, 1, 19, dtype=torch.float64)
    sigma = (80 ** (1 / 7) + u * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(path.at(time_grid(path, 18)).s, sigma, rtol=1e-9, atol=0)


# -- guidance ---------------------------------------------------------------------------------------------------------


def test_guidance_is_the_same_in_every_space() -> None:
    path, t = VPCosine(), 0.5
    good, bad = gaussian_denoiser(path), gaussian_denoiser(path, MEAN + 1, 2 * VARIANCE)
    x, e = guided(good, bad, 2.5, path)(Z, t)
    at = path.number(t)
    torch.testing.assert_close(at.a * x + at.s * e, Z)
    for target in TARGETS:
        p, q = coefficients(target, path.at(torch.tensor(t, dtype=torch.float64)))
        (x1, e1), (x0, e0) = good(Z, t), bad(Z, t)
        output = (p * x0 + q * e0) + 2.5 * ((p * x1 + q * e1) - (p * x0 + q * e0))
        torch.testing.assert_close(p * x + q * e, output, rtol=1e-12, atol=1e-12)
        # Controls: the paper's w, which is one less; and estimates that are clipped before, which is not affine.
        paper = (p * x1 + q * e1) + 2.5 * ((p * x1 + q * e1) - (p * x0 + q * e0))
        assert not torch.allclose(p * x + q * e, paper, atol=1e-3)
        cut = [x.clamp(-0.1, 0.1) for x in (x0, x1)]
        wrong = torch.lerp(*[p * x + q * e for x, e in zip(cut, (e0, e1), strict=True)], 2.5)
        x_cut, e_cut = guided(clipped(good, path, -0.1, 0.1), clipped(bad, path, -0.1, 0.1), 2.5, path)(Z, t)
        assert target == "x" or not torch.allclose(p * x_cut + q * e_cut, wrong, atol=1e-3)
    assert guided(good, bad, 1, path) is good
    off = guided(good, bad, 2.5, path, interval=(-20.0, -10.0))(Z, t)
    assert torch.equal(off[0], good(Z, t)[0])


def test_clipping_recomputes_the_noise() -> None:
    path, t = Linear(), 0.5
    x, e = clipped(gaussian_denoiser(path), path, -0.1, 0.1)(Z, t)
    assert x.abs().max() <= 0.1
    torch.testing.assert_close(path.number(t).a * x + path.number(t).s * e, Z)
    kept = gaussian_denoiser(path)(Z, t)[1]
    assert not torch.allclose(path.number(t).a * x + path.number(t).s * kept, Z, atol=1e-2), "the noise before clipping"


def test_conjugate_gradients_solve_every_row() -> None:
    a = torch.randn(3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix, b = a @ a.mT + torch.eye(6), torch.ones(3, 6, dtype=torch.float64)
    b[2] = 0
    found = conjugate_gradients(lambda v: (matrix @ v[..., None])[..., 0], b, 6)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, b), rtol=1e-8, atol=1e-8)


def test_inpainting_a_correlated_gaussian() -> None:
    """The second of two values with correlation .9, given the first: exact mean and variance; replacement is wrong."""
    path, rho, observed = Linear(), 0.9, 1.0
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)

    def denoise(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        at = path.number(t)
        gain = at.a * covariance @ torch.linalg.inv(at.a**2 * covariance + at.s**2 * torch.eye(2))
        x = z @ gain.T
        return x, (z - at.a * x) / at.s

    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 2, dtype=torch.float64, generator=generator)
    mask = torch.tensor([1.0, 0.0], dtype=torch.float64)
    y = torch.full((4000, 2), observed, dtype=torch.float64) * mask
    given = posterior(denoise, path, y, lambda v: v * mask, lambda v: v * mask)
    x = last_state(DDPM(), given, z, path, time_grid(path, 200), generator)
    assert x[:, 0].mean().item() == pytest.approx(observed, abs=0.01)
    assert x[:, 1].mean().item() == pytest.approx(rho * observed, abs=0.02)
    assert x[:, 1].var().item() == pytest.approx(1 - rho**2, abs=0.02)

    def replaced(z: Tensor, t: float) -> tuple[Tensor, Tensor]:  # negative control: overwrite the known value
        at = path.number(t)
        noisy = at.a * observed + at.s * torch.randn(len(z), dtype=z.dtype, generator=generator)
        return denoise(torch.stack([noisy, z[:, 1]], 1), t)

    wrong = last_state(DDPM(), replaced, z, path, time_grid(path, 200), generator)
    assert abs(wrong[:, 1].mean().item() - rho * observed) > 0.1
