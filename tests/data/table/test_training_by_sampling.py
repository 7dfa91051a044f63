"""Training by sampling draws categories by the logarithm of their frequency, and rows that have them."""

import torch

from zoo.data.table.training_by_sampling import TrainingBySampling

COUNTS = ((900, 90, 10), (500, 500))
N, DRAWN = 1_000, 40_000


def table() -> TrainingBySampling:
    """Rows of two choices with known counts, around the number of the row."""
    generator = torch.Generator().manual_seed(0)
    codes = [
        torch.arange(len(c)).repeat_interleave(torch.tensor(c))[torch.randperm(N, generator=generator)] for c in COUNTS
    ]
    one_hot = [torch.nn.functional.one_hot(code, len(c)).float() for code, c in zip(codes, COUNTS, strict=True)]
    x = torch.cat([one_hot[0], torch.arange(N)[:, None].float(), one_hot[1]], 1)
    return TrainingBySampling(x, torch.tensor([0, 1, 2, 4, 5]), [slice(0, 3), slice(3, 5)])


def near(counts: torch.Tensor, shares: torch.Tensor) -> bool:
    """Whether counts agree with their shares within four standard errors."""
    n = counts.sum()
    return bool(((counts / n - shares).abs() <= 4 * (shares * (1 - shares) / n).sqrt()).all())


def test_places_have_the_logarithms_of_their_frequencies() -> None:
    torch.manual_seed(0)
    made = table()
    logs = [torch.tensor([901.0, 91.0, 11.0]).log(), torch.tensor([501.0, 501.0]).log()]
    expected = torch.cat([part / part.sum() / 2 for part in logs])
    torch.testing.assert_close(made.shares, expected)
    found = torch.bincount(made.draw_places(DRAWN), minlength=5)
    assert near(found, expected)
    assert not near(found, torch.cat([torch.tensor(c) / N / 2 for c in COUNTS])), "not the frequencies themselves"


def test_rows_have_their_category_and_are_equally_likely() -> None:
    torch.manual_seed(0)
    made = table()
    x, places = made.draw(DRAWN)
    assert (x[torch.arange(DRAWN), torch.tensor([0, 1, 2, 4, 5])[places]] == 1).all()
    for place, count in ((2, 10), (1, 90)):
        drawn = torch.bincount(x[places == place, 3].long(), minlength=N)
        having = made.x[:, place] == 1
        assert near(drawn[having], torch.full((count,), 1 / count))
        assert not drawn[~having].any()
    logs = torch.tensor([901.0, 91.0, 11.0]).log()
    means = torch.stack([made.x[made.x[:, place] == 1, 4:].mean(0) for place in range(3)])
    assert near(x[places < 3][:, 4:].sum(0), logs / logs.sum() @ means), "the other column keeps its law"


def test_without_choices_rows_are_equally_likely() -> None:
    torch.manual_seed(0)
    made = TrainingBySampling(torch.arange(20.0)[:, None], torch.zeros(0, dtype=torch.int64), [])
    x, places = made.draw(DRAWN)
    assert near(torch.bincount(x[:, 0].long(), minlength=20), torch.full((20,), 0.05))
    assert not places.any()


def test_a_category_without_rows_is_never_drawn() -> None:
    x = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    made = TrainingBySampling(x, torch.arange(3), [slice(0, 3)])
    assert set(made.draw_places(500).tolist()) == {0, 2}
