"""Changes of given data, against closed forms of Gaussians."""

import pytest
import torch
from torch import Tensor

import zoo
from tests.contracts.specs import SPECS
from tests.nn.diffusion.gaussian import VARIANCE, gaussian_denoiser, gaussian_flow
from zoo.core.errors import ConfigError, DataError
from zoo.core.spaces import Image, Label, Vector, Video
from zoo.models.diffusion.diffusion import Diffusion
from zoo.nn.diffusion.observation import Observation, average_pool, known_values, luma

SMALL = {"denoiser": {"name": "mlp", "width": 16, "depth": 1}}
HEUN = {"sampler": {"name": "heun", "steps": 100}}
POINTS = zoo.DataSpec(Vector(2), Label(2), name="two classes")
MEANS = torch.tensor([[0.3, -0.5], [-1.0, 2.0], [0.0, 0.0]], dtype=torch.float64)  # of two classes, and of none


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


class Exact(Diffusion):
    """The velocity of a Gaussian with one mean per class."""

    def predict(self, z, at, y):
        means = MEANS[torch.full((len(z),), 2) if y is None else y]
        x, e = gaussian_denoiser(self.path, means)(z, at.t.flatten())
        return e - x


class Linear(Diffusion):
    """The velocity of a Gaussian of mean zero and of any covariance, on the linear path."""

    def predict(self, z, at, y):
        covariance = self.covariance.to(z)
        a, s = at.a.flatten()[0], at.s.flatten()[0]
        gain = a * covariance @ torch.linalg.inv(a**2 * covariance + s**2 * torch.eye(len(covariance), dtype=z.dtype))
        x = (z.flatten(1) @ gain.T).view_as(z)
        return (z - x) / s  # e - x, as a = 1 - s


def exact(**settings) -> Exact:
    return Exact(POINTS, **HEUN, **SMALL, **settings).double().eval()


def linear(spec: zoo.DataSpec, covariance: Tensor, scale: float = 1.0) -> Linear:
    model = Linear(spec, **SMALL).double().eval()
    model.covariance = covariance.double()
    if isinstance(spec.x, Image | Video):
        model.standardize.scale.fill_(scale)
    return model


# -- variations -------------------------------------------------------------------------------------------------------

X = torch.tensor([[1.0, -0.7], [0.2, 0.4], [-0.5, 1.1]], dtype=torch.float64)


def test_a_variation_is_the_flow_from_the_noised_data() -> None:
    model = exact()
    for strength in (0.3, 0.7):
        noise = model.prior_noise(3, seed())
        noised = (1 - strength) * X + strength * noise
        means = MEANS[2]
        expected = gaussian_flow(model.path, noised - (1 - strength) * means, strength, 0.0)
        shift = gaussian_flow(model.path, torch.zeros(1, 2, dtype=torch.float64), strength, 0.0)
        found = model.edit(X, strength=strength, generator=seed())
        spread = (VARIANCE / ((1 - strength) ** 2 * VARIANCE + strength**2)).sqrt()
        torch.testing.assert_close(found, spread * noised, rtol=0, atol=2e-3)
        torch.testing.assert_close(expected - shift, spread * noised)
    assert not torch.allclose(found, spread * (X + strength * noise), atol=0.05), "negative control: without a"


def test_at_strength_one_it_is_a_sample_and_near_zero_it_is_the_data() -> None:
    model, labels = exact(), torch.tensor([0, 1, 1])
    found = model.edit(X, strength=1.0, condition=labels, generator=seed())
    assert torch.equal(found, model.sample(3, condition=labels, generator=seed()))
    torch.testing.assert_close(model.edit(X, strength=1e-4, generator=seed()), X, rtol=0, atol=1e-3)


def test_inversion_returns_the_data_and_moves_it_between_classes() -> None:
    """Both classes have one variance: the exact map between them adds the difference of their means."""
    model = exact()
    ones = torch.ones(3, dtype=torch.long)
    for strength in (0.5, 1.0):
        same = model.edit(X, invert=True, strength=strength, source=1, condition=ones)
        torch.testing.assert_close(same, X, rtol=0, atol=0.02)
    moved = model.edit(X, invert=True, strength=1.0, source=0, condition=ones)
    torch.testing.assert_close(moved, X - MEANS[0] + MEANS[1], rtol=0, atol=0.03)
    plain = model.edit(X, strength=1.0, condition=ones, generator=seed())
    assert (plain - (X - MEANS[0] + MEANS[1])).abs().max() > 0.3, "negative control: fresh noise forgets the data"


def test_interpolations_begin_and_end_at_the_data() -> None:
    model = exact()
    walks = model.interpolate(1, 5, between=X[:2], condition=torch.tensor([1]))
    torch.testing.assert_close(walks[0, [0, -1]], X[:2], rtol=0, atol=0.02)
    free = model.interpolate(1, 5, between=X[:2])
    torch.testing.assert_close(free[0, [0, -1]], X[:2], rtol=0, atol=0.02)
    assert not torch.allclose(walks[0, 2], free[0, 2], atol=0.01)


# -- linear observations ----------------------------------------------------------------------------------------------

MASK = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)[None, None]
OBSERVATIONS = {
    "mask": (known_values(MASK), (4, 1, 2, 3)),
    "average": (average_pool(2), (4, 2, 4, 6)),
    "luma": (luma(), (4, 3, 2, 3)),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_adjoint_gain_and_projection(name: str) -> None:
    """<H x, y> = <x, H^T y>, and the projection is the least change that observes y."""
    H, shape = OBSERVATIONS[name]
    x = torch.randn(shape, dtype=torch.float64, generator=seed())
    y = H.forward(torch.randn(shape, dtype=torch.float64, generator=seed(1)))
    torch.testing.assert_close((H.forward(x) * y).sum(), (x * H.adjoint(y)).sum())
    projected = H.project(x, y)
    torch.testing.assert_close(H.forward(projected), y)
    change = projected - x
    other = torch.randn(shape, dtype=torch.float64, generator=seed(2))
    null = other - H.adjoint(H.forward(other)) / H.gain  # has no observation
    torch.testing.assert_close((change * null).sum(), torch.zeros((), dtype=torch.float64))
    wrong = Observation(H.forward, H.adjoint, 2 * H.gain)
    assert not torch.allclose(H.forward(wrong.project(x, y)), y), "negative control"


def test_inpainting_is_exact_on_a_correlated_gaussian_and_repaint_is_not() -> None:
    """The second of two values with correlation .9, given the first: mean .9 and variance .19."""
    model = linear(zoo.DataSpec(Vector(2), name="pair"), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
    x = torch.tensor([[1.0, 77.0]], dtype=torch.float64).expand(4000, 2)
    mask = torch.tensor([[False, True]])
    drawn = model.inpaint(x, mask, generator=seed(), steps=100, iterations=1)
    assert torch.equal(drawn[:, 0], x[:, 0]), "given values stay as they are"
    assert drawn[:, 1].mean().item() == pytest.approx(0.9, abs=0.03)
    assert drawn[:, 1].var().item() == pytest.approx(0.19, abs=0.02)
    once, often = (
        model.inpaint(x[:2000], mask, generator=seed(), sampler="ddpm", steps=50, rounds=rounds)[:, 1]
        for rounds in (1, 10)
    )
    assert once.mean().item() < 0.75, "replacement alone is biased"
    assert often.mean().item() == pytest.approx(0.9, abs=0.08)
    assert often.var().item() < 0.17, "and many rounds lose variance"


def test_predicted_frames_have_the_law_of_a_gaussian_process() -> None:
    """Frames x_{t+1} = r x_t + noise: given two, the third needs the second, and the fourth has variance 1 - r^4."""
    r, scale = 0.8, 0.05
    steps = torch.arange(4)
    correlation = r ** (steps[:, None] - steps).abs().double()
    model = linear(zoo.DataSpec(Video(4, 1, 1, 1), name="walk"), correlation, scale=scale)
    given = torch.tensor([0.4, 0.53], dtype=torch.float64).view(1, 2, 1, 1, 1).expand(3000, -1, -1, -1, -1)
    x = model.predict_frames(given, generator=seed(), steps=100, iterations=4)
    assert torch.equal(x[:, :2], given), "given frames stay as they are"
    mean = 0.5 + 0.03 * torch.tensor([r, r**2], dtype=torch.float64)
    torch.testing.assert_close(x[:, 2:].mean(0).flatten(), mean, rtol=0, atol=0.004)
    variance = scale**2 * (1 - torch.tensor([r**2, r**4], dtype=torch.float64))
    torch.testing.assert_close(x[:, 2:].var(0).flatten(), variance, rtol=0.12, atol=0)
    swapped = model.predict_frames(given.flip(1), generator=seed(), steps=100, iterations=4)
    assert abs(swapped[:, 2].mean() - mean[0]) > 0.05, "negative control: the order of the given frames matters"
    with pytest.raises(DataError, match="K from 1 to 3"):
        model.predict_frames(x)


def test_super_resolution_draws_the_details_of_white_noise() -> None:
    """Independent pixels of variance V: given a mean of four, each has that mean and the variance 3/4 V."""
    spec = zoo.DataSpec(Image(1, 4, 4), name="noise")
    model = linear(spec, torch.eye(16), scale=0.05)  # images of deviation .05 around one half
    small = torch.full((1000, 1, 2, 2), 0.5, dtype=torch.float64)
    small[:, :, 0, 0] = 0.53
    x = model.super_resolve(small, generator=seed(), steps=50, iterations=1)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(x, 2), small, rtol=0, atol=1e-7)
    torch.testing.assert_close(x.mean(0)[0, :2, :2], torch.full((2, 2), 0.53).double(), rtol=0, atol=0.005)
    free = model.sample(1000, generator=seed(), sampler="ddpm", steps=50)  # V, less the sampler's own error
    assert free.var(0).mean().item() == pytest.approx(0.05**2, rel=0.1)
    assert x.var(0).mean().item() == pytest.approx(0.75 * free.var(0).mean().item(), rel=0.03)


def test_colours_have_the_given_brightness() -> None:
    """Independent channels of variance V and weights w: the variance is V (1 - w^2 / |w|^2)."""
    spec = zoo.DataSpec(Image(3, 2, 2), name="noise")
    model = linear(spec, torch.eye(12), scale=0.05)
    grey = torch.full((1500, 1, 2, 2), 0.52, dtype=torch.float64)
    x = model.colorize(grey, generator=seed(), steps=100, iterations=1)
    torch.testing.assert_close(luma().forward(x), grey, rtol=0, atol=1e-7)
    w = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    expected = 0.05**2 * (1 - w**2 / w.square().sum())
    torch.testing.assert_close(x.var((0, 2, 3)), expected, rtol=0.1, atol=1e-5)


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_what_the_data_rule_out_is_not_an_ability() -> None:
    grey, colour, points = (Diffusion(spec, **SMALL) for spec in (SPECS["image"], SPECS["wide"], POINTS))
    assert {"edit", "inpaint"} <= points.abilities.keys()
    assert not {"super_resolve", "colorize"} & points.abilities.keys()
    assert "super_resolve" in grey.abilities
    assert "colorize" not in grey.abilities
    assert "colorize" in colour.abilities


def test_what_does_not_fit_is_refused() -> None:
    model, x = Diffusion(SPECS["image"], **SMALL), torch.rand(2, 1, 8, 8)
    mask, label = x > 0.5, torch.tensor([1, 2])
    with pytest.raises(DataError, match="not a batch of"):
        model.edit(x[..., :4])
    with pytest.raises(DataError, match="mask="):
        model.inpaint(x, mask[..., :5])
    for height, width in ((3, 3), (4, 3), (9, 9)):
        with pytest.raises(DataError, match=r"Resize"):
            model.super_resolve(torch.rand(2, 1, height, width))
    with pytest.raises(DataError, match="not an integer multiple"):
        Diffusion(SPECS["wide"], **SMALL).super_resolve(torch.rand(2, 3, 3, 4))
    with pytest.raises(ConfigError, match="needs a class"):
        model.edit(x, guidance=2.0)
    with pytest.raises(ConfigError, match="invert=true"):
        model.edit(x, source=3)
    with pytest.raises(ConfigError, match="RePaint"):
        model.inpaint(x, mask, sampler="adaptive", rounds=2)
    with pytest.raises(DataError, match="class labels from 0"):
        model.edit(x, condition=torch.tensor([1, 10]))
    always = Diffusion(SPECS["image"], label_dropout=0.0, **SMALL)
    with pytest.raises(DataError, match="label_dropout=0"):
        always.edit(x)
    assert always.edit(x, condition=label).shape == x.shape
