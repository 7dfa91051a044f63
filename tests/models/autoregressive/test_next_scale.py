"""Next-scale prediction: probabilities by enumeration, what each scale may read, caches, guidance, the first stage."""

import itertools
import math

import pytest
import torch

import zoo
from tests.contracts.specs import examples, make
from zoo.core.spaces import Codes, Label
from zoo.data.batch import Batch
from zoo.models.autoregressive.next_scale import NextScale
from zoo.nn.samplers.sampling_params import SamplingParams

GRIDS = Codes((1 + 2 + 6,), 5, (1, 1, 2), (1, 2, 3))
EXACT = SamplingParams()


def small(space: Codes = GRIDS, n_classes: int = 3, **settings) -> NextScale:
    """A model with random weights, also in the layers that start at zero."""
    torch.manual_seed(0)
    spec = zoo.DataSpec(space, Label(n_classes) if n_classes else None, name="codes")
    model = NextScale(spec, d_model=16, n_layers=2, n_heads=2, **settings)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


def rows(n: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(5, (n, 9), generator=torch.Generator().manual_seed(seed))


def every_row(length: int, k: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(k), repeat=length)))


def test_probabilities_sum_to_one_and_are_the_frequencies_of_samples() -> None:
    """All 243 rows of codes on 1x1 and 2x2; probabilities of another class are the negative control."""
    model = small(Codes((5,), 3, (1, 2), (1, 2)), n_classes=2).double()
    everything = every_row(5, 3)
    with torch.no_grad():
        p, other = (model.log_prob(everything, torch.full((243,), label)).exp() for label in (0, 1))
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    assert float(other.sum()) == pytest.approx(1, abs=1e-12)
    n = 20_000
    drawn = model.sample(n, condition=torch.zeros(n, dtype=torch.long), seed=1)
    counts = torch.bincount((drawn * 3 ** torch.arange(4, -1, -1)).sum(1), minlength=243)

    def chi_square(p: torch.Tensor) -> tuple[float, int]:
        """And the degrees of freedom; rows that are expected less than five times are one cell."""
        often = n * p >= 5
        found = torch.cat([counts[often], counts[~often].sum()[None]])
        expected = n * torch.cat([p[often], p[~often].sum()[None]])
        return float(((found - expected).square() / expected).sum()), len(found) - 1

    (value, free), (wrong, wrong_free) = chi_square(p), chi_square(other)
    assert free > 20
    assert value < free + 5 * math.sqrt(2 * free)
    assert wrong > wrong_free + 50 * math.sqrt(2 * wrong_free)
    model.class_shares = [0.25, 0.75]
    with torch.no_grad():
        torch.testing.assert_close(model.log_prob(everything).exp(), 0.25 * p + 0.75 * other)


def first_change(model: NextScale, scale: int) -> int:
    """The first scale whose logits depend on the codes of a scale."""
    codes, y = rows(6), torch.arange(6) % 3
    places = list(torch.arange(9).split(model.lengths))
    changed = codes.clone()
    changed[:, places[scale]] = (changed[:, places[scale]] + 1) % 5
    with torch.no_grad():
        moved = (model.logits(codes, y) - model.logits(changed, y)).abs().amax((0, 2))  # (T,)
    return next((k for k, place in enumerate(places) if float(moved[place].max()) > 1e-6), len(places))


def test_codes_of_a_scale_change_finer_scales_only() -> None:
    """Its codes and coarser ones stay. Without the mask, finer inputs reach coarser logits: the negative control."""
    model = small()
    assert [first_change(model, scale) for scale in range(3)] == [1, 2, 3]
    model.readable = torch.ones_like(model.readable)
    assert [first_change(model, scale) for scale in range(2)] == [0, 0]


def test_every_place_of_a_scale_reads_all_coarser_codes() -> None:
    model, codes, y = small(), rows(1), torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        before = model.logits(codes, y)
        for place, later in ((0, slice(1, 9)), (1, slice(3, 9)), (2, slice(3, 9))):
            changed = codes.clone()
            changed[:, place] = (changed[:, place] + 1) % 5
            moved = (model.logits(changed, y) - before).abs().amax((0, 2))
            assert bool((moved[later] > 1e-6).all())


@pytest.mark.parametrize("weight", [1.0, 2.5])
def test_the_cache_does_not_change_the_result(weight: float) -> None:
    """Nor does the number of rows; without guidance there are other codes: the negative control."""
    model, y = small().double(), torch.arange(40) % 3
    uniform = torch.rand(40, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    codes = model.draw(uniform, y, EXACT, weight)
    assert torch.equal(codes, model.draw(uniform, y, EXACT, weight, cached=False))
    assert torch.equal(codes[:7], model.draw(uniform[:7], y[:7], EXACT, weight))
    assert not torch.equal(codes, model.draw(uniform, y, EXACT, 3.5))
    assert torch.equal(model.sample(7, seed=3), model.sample(12, seed=3)[:7])


def test_guidance_extrapolates_from_the_logits_without_a_label() -> None:
    """Greedy codes of the first scale, by hand: u + w (c - u)."""
    model, y = small(), torch.arange(3)
    with torch.no_grad():
        given, free = (model.logits(rows(3), label)[:, 0] for label in (y, torch.full_like(y, model.none)))
    for weight in (0.0, 1.0, 6.0):
        drawn = model.sample(3, condition=y, guidance=weight, temperature=0.0)
        assert torch.equal(drawn[:, 0], (free + weight * (given - free)).argmax(1))
    assert not torch.equal(given.argmax(1), free.argmax(1)), "the label matters"
    with pytest.raises(zoo.ZooError, match="unconditional"):
        small(n_classes=0).sample(2, guidance=2.0)
    with pytest.raises(zoo.ZooError, match="unconditional"):
        small(n_classes=0, guidance=2.0)


def test_a_share_of_the_labels_is_dropped_in_training_only() -> None:
    model, y = small(label_dropout=0.25), torch.arange(8) % 3
    assert torch.equal(model.dropped(y), y)
    assert model.train().dropped(y).tolist() == [3, *y[1:4].tolist(), 3, *y[5:].tolist()]


def test_codes_of_one_grid_are_refused() -> None:
    with pytest.raises(zoo.ZooError, match="codes of one grid"):
        NextScale(zoo.DataSpec(Codes((4, 4), 16), name="codes"))


def test_training_learns_codes_that_follow_from_coarser_ones() -> None:
    """The finer codes repeat the first one, so log K nats are left; independent codes would cost T log K."""
    torch.manual_seed(0)
    space = Codes((5,), 4, (1, 2), (1, 2))
    model = NextScale(zoo.DataSpec(space, name="codes"), d_model=16, n_layers=1, n_heads=2, dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(Batch(torch.randint(4, (64, 1)).expand(-1, 5), None))["loss"].backward()
        optimizer.step()
    drawn = model.eval().sample(200, seed=0)
    assert (drawn == drawn[:, :1]).float().mean() > 0.98
    with torch.no_grad():
        nats = -model.log_prob(torch.arange(4)[:, None].expand(-1, 5)).mean()
    assert float(nats) == pytest.approx(math.log(4), abs=0.1)


def test_a_first_stage_of_several_scales() -> None:
    """Codes of a VQ-VAE reach the prior with their grids, and samples come back as images."""
    model = make("codes_next_scale", "image").eval()
    assert model.prior.grids == ((1, 1), (2, 2), (4, 4))
    x, y = examples(model.spec, 4)
    found = model.likelihoods(x, y)[0]
    codes = model.first_stage.to_latent(x)
    expected = model.prior.log_prob(codes, y) + model.first_stage.latent_log_prob(x, codes)
    torch.testing.assert_close(found.value, expected)
    drawn = model.sample(3, condition=torch.tensor([1, 2, 3]), seed=0, guidance=2.0)
    assert drawn.shape == (3, 1, 8, 8)
    counts = model.first_stage.code_counts(x)
    assert counts.shape == (3, 16)
    assert counts.sum(1).tolist() == [4, 16, 64]
