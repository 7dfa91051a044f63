"""Series are drawn at their places."""

import csv

import numpy as np
import torch

from zoo.core.spaces import Series
from zoo.viz.files import check_out, write_samples
from zoo.viz.render import renderer_of
from zoo.viz.series import BANDS, COLOURS, HEIGHT, INK, MARGIN, WIDTH, fan

SPACE = Series(9, ("level", "flow"), 3)


def rows_of(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Heights of the pixels of a colour."""
    return np.nonzero((picture == colour).all(2))[0]


def test_a_rising_line_is_drawn_upwards_and_a_gap_is_left_out() -> None:
    renderer = renderer_of(SPACE)
    x = torch.stack([torch.linspace(0, 1, 9), torch.full((9,), 0.5)], 1)
    picture = renderer.single(x)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    up, across = np.nonzero((picture == COLOURS[0]).all(2))
    assert up[across.argmin()] > up[across.argmax()]
    assert up.min() < MARGIN + 10
    assert up.max() > HEIGHT - 14
    flat = rows_of(picture, COLOURS[1])
    assert flat.max() - flat.min() <= 1
    broken = x.clone()
    broken[3:6, 0] = torch.nan
    assert len(rows_of(renderer.single(broken), COLOURS[0])) < 0.7 * len(up)
    assert renderer.single(torch.full((9, 2), torch.nan)).shape == picture.shape


def test_many_windows_are_in_rows() -> None:
    renderer = renderer_of(SPACE)
    x = torch.randn(5, 9, 2)
    assert renderer.render(x).shape == (2 * HEIGHT, 3 * WIDTH, 3)
    assert renderer.render(x, columns=5).shape == (HEIGHT, 5 * WIDTH, 3)
    assert renderer.compare(x, x + 1).shape == (2 * HEIGHT, 3 * WIDTH, 3)
    assert renderer.walks(torch.randn(2, 4, 9, 2)).shape == (2 * HEIGHT, 4 * WIDTH, 3)


def test_the_bands_of_a_fan_are_around_the_median() -> None:
    x, paths = torch.zeros(9, 2), torch.randn(400, 3, 2) * torch.tensor([1.0, 2.0, 3.0])[:, None]
    picture = fan(x, paths, "level")
    outer, inner = (rows_of(picture, colour) for _, colour in BANDS)
    assert outer.min() < inner.min() < inner.max() < outer.max()
    assert len(rows_of(picture, INK)) > 0


def test_windows_are_written_as_csv(tmp_path) -> None:
    renderer, x = renderer_of(SPACE), torch.randn(2, 9, 2)
    check_out(tmp_path / "a.csv", renderer)
    write_samples(x, tmp_path / "a.csv", renderer)
    heading, *rows = csv.reader((tmp_path / "a.csv").open())
    assert heading == ["window", "step", "level", "flow"]
    assert [row[:2] for row in rows] == [[str(w), str(t)] for w in range(2) for t in range(9)]
    values = torch.tensor([[float(v) for v in row[2:]] for row in rows]).view(2, 9, 2)
    assert torch.allclose(values, x, rtol=1e-4)
