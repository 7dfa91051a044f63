"""The probabilities of a model sum to one, and its densities integrate to one."""

import itertools
import math

import pytest
import torch

import zoo
from tests.contracts.specs import (
    CASES,
    MODELS,
    PAIRS,
    SPECS,
    configured,
    examples,
    info_of,
    make,
    one_recipe_of_each_class,
    paired,
)
from tests.contracts.test_models import prepare, prepared
from zoo.core.spaces import Codes, Image, Label, Preference, Tokens, Vector
from zoo.models.abilities import SupportsLikelihood, SupportsLogProb
from zoo.models.ability import supports


def scores(name: str) -> bool:
    """Whether the class of a recipe has a likelihood; an instance has no ability beyond those of its class."""
    return name in PAIRS or bool({"exact likelihood", "likelihood bound"} & {*info_of(name).abilities})


SCORING = [name for name in MODELS if "exact likelihood" in info_of(name).abilities]


@pytest.mark.parametrize(("name", "key"), paired(case for case in CASES if scores(case[0])))
def test_what_scores_says_what_its_scores_are(name: str, key: str) -> None:
    model = make(name, key)
    assert supports(model, SupportsLikelihood) or not supports(model, SupportsLogProb)
    if not supports(model, SupportsLikelihood) or isinstance(SPECS[key].x, Preference):
        return
    model = prepared(name, key)
    x, y = examples(model.spec, 3)
    with torch.no_grad():
        offered = model.likelihoods(x, y)
    assert offered
    for one in offered:
        assert one.value.shape == (3,)
        assert one.kind in ("discrete", "continuous")
        assert one.exact == supports(model, SupportsLogProb)
        if SPECS[key].text:
            assert one.kind != "continuous", "tokens have probabilities"
        if isinstance(SPECS[key].x, Vector):
            assert one.kind != "discrete", "vectors have no levels"


@pytest.mark.parametrize(
    ("likelihood", "levels", "kind"),
    [
        ("bernoulli", 2, "discrete"),
        ("bernoulli", 17, "none"),
        ("gaussian", 2, "continuous"),
        ("gaussian", 17, "continuous"),
        ("discretised_logistic", 17, "discrete"),
        ("categorical", 17, "discrete"),
    ],
)
def test_a_bound_is_of_what_its_likelihood_is(likelihood: str, levels: int, kind: str) -> None:
    spec = zoo.DataSpec(Image(1, 8, 8, levels=levels), Label(10))
    for name in ("vae", "cvae", "iwae"):
        model = zoo.create_model(name, data=spec, likelihood=likelihood)
        assert model.likelihood_kind == kind
        assert supports(model, SupportsLikelihood) == (kind != "none")


TINY = {levels: zoo.DataSpec(Image(1, 2, 2, levels=levels)) for levels in (2, 3)}
PIXELS = [n for n in SCORING if "image" in info_of(n).accepts]


@pytest.mark.parametrize("levels", TINY)
@pytest.mark.parametrize("name", PIXELS)
def test_a_mass_sums_to_one_over_all_images(name: str, levels: int) -> None:
    if make(name, TINY[levels]).likelihood_kind != "discrete":
        pytest.skip("its likelihood is a density")
    model = fitted(name, TINY[levels])
    grid = torch.arange(levels) / (levels - 1)
    x = torch.tensor(list(itertools.product(grid.tolist(), repeat=4))).view(-1, 1, 2, 2)
    with torch.no_grad():
        assert model.log_prob(x).exp().sum().item() == pytest.approx(1, abs=1e-4)


CODES = {  # (B, h, w), several codes at a place, a row, and two grids in one row
    "grid": Codes((2, 2), 3),
    "channels": Codes((1, 2, 2), 3),
    "row": Codes((4,), 3),
    "scales": Codes((1 + 4,), 3, (1, 2), (1, 2)),
}
OF_CODES = [n for n in SCORING if "codes" in info_of(n).accepts]


@pytest.mark.parametrize("key", CODES)
@pytest.mark.parametrize("name", OF_CODES)
def test_a_mass_sums_to_one_over_all_codes(name: str, key: str) -> None:
    space = CODES[key]
    if name == "next_scale" and key != "scales":
        pytest.skip("learns codes on grids from coarse to fine")
    model = fitted(name, zoo.DataSpec(space))
    x = torch.tensor(list(itertools.product(range(3), repeat=space.size))).view(-1, *space.shape)
    with torch.no_grad():
        p = model.log_prob(x).exp()
        assert p.sum().item() == pytest.approx(1, abs=1e-4)
        assert p[x.flatten(1)[:, -1] > 0].sum().item() < 0.99, "the control: without a code there is less"
        drawn = model.sample(5, generator=torch.Generator().manual_seed(0))
    space.validate(drawn)
    assert drawn.dtype == torch.int64


@pytest.mark.parametrize("name", one_recipe_of_each_class((n,) for n in SCORING if "vector" in info_of(n).accepts))
def test_a_density_integrates_to_one_over_the_plane(name: str) -> None:
    settings = configured(name, True, True)
    if settings.get("target", "v") not in ("v", "velocity", "edm"):
        pytest.skip("its untrained density is not as wide as the plane, because zeros mean the data or the noise")
    model = fitted(name, zoo.DataSpec(Vector(2)))
    assert model.likelihood_kind == "continuous"
    networks = {"denoiser", "transform"} & set(settings)
    n = 100 if networks else 1000  # their densities are slow, and smooth
    side = torch.linspace(-8, 8, n + 1)
    with torch.no_grad():
        p = model.log_prob(torch.cartesian_prod(side, side)).exp()
    assert p.sum().item() * (16 / n) ** 2 == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", [n for n in SCORING if "tokens" in info_of(n).accepts])
def test_a_mass_sums_to_one_over_all_texts_of_a_length(name: str) -> None:
    model = fitted(name, zoo.DataSpec(Tokens(16, 5)))
    x = torch.tensor(list(itertools.product(range(5), repeat=4)))
    with torch.no_grad():
        assert model.log_prob(x).exp().sum().item() == pytest.approx(1, abs=1e-4)
        y = x.roll(1, 1)
        assert model.log_prob(y, x).max() < 0


def fitted(name: str, spec: zoo.DataSpec) -> zoo.Model:
    model = make(name, spec)
    prepare(model)
    assert math.isfinite(model.loss(examples(spec, 8))["loss"].item())
    return model
