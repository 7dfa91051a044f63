"""Curves, pixel by pixel, and the schedules of diffusion models."""

import numpy as np
import torch

from zoo.models.results import Curve
from zoo.viz.curves import BOTTOM, HEIGHT, INK, LEFT, MARK, RIGHT, TOP, WIDTH, draw_curve, draw_curves, limits


def inked(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of the pixels of a colour."""
    return np.argwhere((picture == np.array(colour)).all(-1))


def test_a_line_goes_from_corner_to_corner() -> None:
    x = torch.linspace(-3, 5, 50)
    picture = draw_curve(Curve("line", x, 2 * x, "x", torch.tensor([1.0])))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    points = inked(picture, INK)
    slope, intercept = np.polyfit(points[:, 1], points[:, 0], 1)
    assert abs(slope - (TOP - HEIGHT + BOTTOM) / (WIDTH - RIGHT - LEFT)) < 0.02
    assert abs(slope * LEFT + intercept - (HEIGHT - BOTTOM)) < 2
    centre = inked(picture, MARK).mean(0)
    assert abs(centre[1] - (LEFT + WIDTH - RIGHT) / 2) < 4, "the mark is at the middle of x"
    assert abs(centre[0] - (TOP + HEIGHT - BOTTOM) / 2) < 4


def test_values_that_are_not_finite_leave_a_gap() -> None:
    x = torch.arange(5.0)
    y = torch.tensor([0.0, 1.0, torch.inf, 1.0, 0.0])
    columns = inked(draw_curve(Curve("gap", x, y, "x")), INK)[:, 1]
    quarter = (WIDTH - RIGHT - LEFT) / 4
    inside = (columns > LEFT + 1.2 * quarter) & (columns < LEFT + 2.8 * quarter)
    assert not inside.any()
    assert len(columns)


def test_limits() -> None:
    assert limits(torch.tensor([2.0, torch.nan, 5.0])) == (2.0, 5.0)
    assert limits(torch.tensor([4.0, 4.0 + 1e-9], dtype=torch.float64))[0] == 3.5, "rounding is not a change"
    assert draw_curves([Curve("a", torch.arange(3.0), torch.zeros(3), "x")] * 2).shape == (HEIGHT, 2 * WIDTH, 3)
