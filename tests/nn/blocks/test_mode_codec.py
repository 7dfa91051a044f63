"""Mode-specific normalisation is exact whatever the mode, and its modes are those of a mixture."""

import pytest
import torch
from sklearn.mixture import GaussianMixture

from tests.data.table.examples import SPEC, rows
from zoo.core.columns import Column, write_columns
from zoo.core.spaces import Table
from zoo.nn.blocks.mode_codec import WIDTH, ModeCodec
from zoo.nn.blocks.table_codec import TableCodec

WEIGHTS, MEANS, STDS = (torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.7], [-6.0, 6.0], [2.0, 4.0]))
N = 4_000


def two_modes(n: int = N) -> torch.Tensor:
    """Cells (n, 1) of a mixture of two Gaussians."""
    generator = torch.Generator().manual_seed(0)
    chosen = (torch.rand(n, generator=generator) >= WEIGHTS[0]).long()
    return (MEANS[chosen] + STDS[chosen] * torch.randn(n, dtype=torch.float64, generator=generator))[:, None]


def fitted(cells: torch.Tensor, step: float = 0.0, n_modes: int = 10) -> tuple[ModeCodec, torch.Tensor]:
    """A codec that is fitted to cells (N, 1), and these as encoded rows."""
    low, high = cells.min().item(), cells.max().item()
    last = (high - low) / (step or high - low)
    knots = (-0.5, last / 3, last + 0.5) if step else (0.0, 0.4, 1.0)
    column = Column("value", "number", low=low, high=high, step=step, knots=knots, scores=(-3.0, 0.1, 3.0))
    codec = TableCodec(Table(write_columns((column,))))
    x = codec.encode(cells)
    modes = ModeCodec(codec, n_modes)
    modes.fit(x)
    return modes, x


def test_the_inverse_is_exact_for_every_mode() -> None:
    """Also of numbers far from the mode; another mode's number is another."""
    modes, x = fitted(two_modes())
    used = int((modes.weights > 0).sum())
    assert used >= 2
    cells = modes.codec.decode(x)
    for k in range(10):
        if not modes.weights[0, k]:
            continue
        value = (modes.numbers(x) - modes.means[0, k]) / (WIDTH * modes.stds[0, k])
        wide = torch.cat([torch.eye(10)[k].expand(N, -1), value], 1)
        torch.testing.assert_close(modes.codec.decode(modes.decode(wide)), cells, atol=1e-4, rtol=0)
        wrong = torch.cat([wide[:, :10].roll(1, 1), value], 1)
        assert (modes.codec.decode(modes.decode(wrong)) - cells).abs().mean() > 1


@pytest.mark.parametrize("size", [10, 4_000, 2**18 - 1])
def test_numbers_on_a_grid_come_back_exactly(size: int) -> None:
    cells = torch.linspace(0, size, 2_000, dtype=torch.float64).round()[:, None] / 4
    modes, x = fitted(cells, step=0.25)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        wide = modes.encode(x, torch.rand(len(x), 1, generator=generator))
        assert torch.equal(modes.codec.decode(modes.decode(wide)), cells)


def test_missing_values_have_neither_mode_nor_value() -> None:
    codec = TableCodec(SPEC.x)
    modes, x = ModeCodec(codec, 3), rows(200)
    for _ in ("before", "after"):
        wide = modes.encode(x, torch.rand(len(x), 2))
        assert wide.shape == (200, modes.width)
        assert modes.width == 4 + 2 + 2 * 3 + 2
        torch.testing.assert_close(modes.decode(wide), x, atol=1e-5, rtol=0)
        gone = codec.decode(x)[:, 2].isnan()
        assert gone.any()
        assert not wide[gone][:, [9, 10, 11, 13]].any()
        assert torch.equal(wide[~gone][:, 9:12].sum(1), torch.ones(int((~gone).sum())))
        soft = modes.soften(torch.randn(len(x), modes.width), torch.rand(len(x), modes.n_places), 0.01)
        assert (soft[soft[:, 5] > 0.99][:, [9, 10, 11, 13]].abs() < 0.01).all()
        assert modes.decode(torch.randn(50, modes.width)).isfinite().all()
        modes.fit(x)


def test_responsibilities_are_those_of_scikit_learn() -> None:
    modes, x = fitted(two_modes(), n_modes=2)
    oracle = GaussianMixture(2)
    oracle.weights_, oracle.means_ = modes.weights[0].double().numpy(), modes.means.double().T.numpy()
    oracle.covariances_ = modes.stds[0].double().square().numpy()[:, None, None]
    oracle.precisions_cholesky_ = oracle.covariances_**-0.5
    t = modes.numbers(x).double()
    expected = torch.from_numpy(oracle.predict_proba(t.numpy()))
    assert expected.min(1).values.max() > 0.1, "some numbers are between the modes"
    torch.testing.assert_close(modes.responsibilities(t)[:, 0], expected, atol=1e-9, rtol=0)
    modes.weights.fill_(0.5)
    assert (modes.responsibilities(t)[:, 0] - expected).abs().max() > 0.05, "weights count"


def test_the_fit_finds_the_density_of_a_known_mixture() -> None:
    """The mean log-density of the fit is nearly that of the law; that of one Gaussian is not."""
    modes, x = fitted(two_modes())
    y = modes.codec.decode(x)  # (N, 1)
    unit, low = modes.codec.columns[0].unit, modes.codec.columns[0].low

    def nats(weights: torch.Tensor, means: torch.Tensor, stds: torch.Tensor) -> torch.Tensor:
        parts = torch.distributions.Normal(means.double(), stds.double()).log_prob(y) + weights.double().log()
        return parts.logsumexp(1)

    found = nats(modes.weights[0], low + unit * modes.means[0], unit * modes.stds[0])
    gap = nats(WEIGHTS, MEANS, STDS) - found
    assert abs(gap.mean()) < 0.01
    one = nats(torch.ones(1), y.mean(0), y.std(0))
    assert (nats(WEIGHTS, MEANS, STDS) - one).mean() > 0.05
    used = modes.weights[0][modes.weights[0] > 0]
    assert len(used) >= 2
    assert used.min() >= 0.005
    assert used.sum() == pytest.approx(1)


def test_modes_are_drawn_from_their_responsibilities() -> None:
    modes, x = fitted(two_modes(), n_modes=2)
    between = modes.responsibilities(modes.numbers(x))[:, 0, 0].sub(0.5).abs().argmin()
    share = modes.responsibilities(modes.numbers(x))[between, 0, 0].item()
    assert 0.1 < share < 0.9
    n = 20_000
    wide = modes.encode(x[between].expand(n, -1), torch.rand(n, 1, generator=torch.Generator().manual_seed(2)))
    assert abs(wide[:, 0].mean().item() - share) < 4 * (share * (1 - share) / n) ** 0.5


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_the_largest_place_of_a_gumbel_softmax_has_the_probabilities_of_the_softmax(temperature: float) -> None:
    modes = ModeCodec(TableCodec(SPEC.x), 3)
    modes.weights[:, 1] = 0.5  # two of three are in use
    n, raw = 40_000, torch.randn(1, modes.width, generator=torch.Generator().manual_seed(3))
    u = torch.rand(n, modes.n_places, generator=torch.Generator().manual_seed(4))
    soft = modes.soften(raw.expand(n, -1), u, temperature)
    for start, size in ((0, 4), (4, 2), (6, 3)):
        expected = modes.logits(raw)[0, start : start + size].softmax(0)
        found = torch.bincount(soft[:, start : start + size].argmax(1), minlength=size) / n
        error = (expected * (1 - expected) / n).sqrt()
        assert ((found - expected).abs() <= 4 * error).all()
        torch.testing.assert_close(soft[:, start : start + size].sum(1), torch.ones(n))
        assert (soft[:, start : start + size].sum(0) / n - expected).abs().max() < (0.05 if temperature < 1 else 0.2)
    assert not soft[:, 8].any(), "a mode that is not in use"
    squared = modes.soften(2 * raw.expand(n, -1), u, temperature)[:, :4].argmax(1)  # negative control: other logits
    wrong = (torch.bincount(squared, minlength=4) / n - raw[0, :4].softmax(0)).abs()
    assert wrong.max() > 0.05
