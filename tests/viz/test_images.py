"""Drawing, pixel by pixel."""

import os
import stat

import numpy as np
import pytest
import torch
from PIL import Image

from tests.contracts.specs import SPECS, examples, make
from zoo.viz.images import (
    BACKGROUND,
    BROKEN,
    GAP,
    HEADER,
    MARGIN,
    comparison_grid,
    density,
    grid,
    interpolation_grid,
    principal_plane,
    save_png,
    with_names,
)
from zoo.viz.render import VisualsView, renderer_of

# -- grid ---------------------------------------------------------------------------------------------------


def test_every_pixel_of_a_grid():
    images = torch.zeros(3, 1, 1, 2)
    images[1], images[2, 0, 0] = 1.0, torch.tensor([0.2, 0.6])
    g = BACKGROUND
    expected = [
        [g, g, g, g, g, g, g],
        [g, 0, 0, g, 255, 255, g],
        [g, g, g, g, g, g, g],
        [g, 51, 153, g, g, g, g],  # the fourth place is empty
        [g, g, g, g, g, g, g],
    ]
    picture = grid(images, columns=2, gap=1, at_least=1)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, np.repeat(np.array(expected)[..., None], 3, axis=-1))


def cell(picture, row=0, column=0, size=(48, 48)):
    top, left = GAP + row * (size[0] + GAP), GAP + column * (size[1] + GAP)
    return picture[top : top + size[0], left : left + size[1]]


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((8, 8), (48, 48)),
        ((28, 28), (56, 56)),
        ((32, 32), (64, 64)),
        ((64, 64), (64, 64)),
        ((9, 5), (54, 30)),
        ((100, 3), (100, 3)),
        ((1, 1), (48, 48)),
    ],
)
def test_small_images_are_enlarged_by_whole_numbers(shape, shown):
    x = torch.rand(4, 1, *shape)
    picture = grid(x, columns=2)
    assert picture.shape == (2 * shown[0] + 3 * GAP, 2 * shown[1] + 3 * GAP, 3)
    times = shown[0] // shape[0]
    expected = (x[3, 0] * 255).round().numpy().astype(np.uint8).repeat(times, 0).repeat(times, 1)
    assert np.array_equal(cell(picture, 1, 1, shown)[..., 0], expected)


def test_about_square_unless_told_otherwise():
    for n, rows, columns in ((64, 8, 8), (10, 3, 4), (1, 1, 1), (2, 1, 2)):
        assert grid(torch.zeros(n, 1, 8, 8)).shape == (rows * 52 + GAP, columns * 52 + GAP, 3)
    assert grid(torch.zeros(3, 1, 8, 8), columns=10).shape[1] == 3 * 52 + GAP, "no empty columns"


def test_channels():
    def pixel(*values):
        return grid(torch.tensor(values).view(1, -1, 1, 1), gap=0, at_least=1)[0, 0].tolist()

    assert pixel(1.0) == [255, 255, 255]
    assert pixel(1.0, 0.2, 0.0) == [255, 51, 0]
    assert pixel(1.0, 0.2) == [153, 153, 153]
    assert pixel(1.0, 0.2, 0.0, 0.7, 0.9) == [255, 51, 0]


def test_values_outside_the_range_are_clamped_and_nan_is_magenta():
    x = torch.tensor([-3.0, 0.5, 7.0, float("nan"), float("inf"), -float("inf")]).view(1, 1, 1, 6)
    row = grid(x, gap=0, at_least=1)[0]
    assert row[:, 0].tolist() == [0, 128, 255, 255, 255, 0]
    assert row[3].tolist() == list(BROKEN)
    colour = torch.zeros(1, 3, 1, 1)
    colour[0, 1] = float("nan")
    assert grid(colour, gap=0, at_least=1)[0, 0].tolist() == list(BROKEN)


def test_gradients_and_half_precision_do_not_matter():
    x = torch.rand(4, 3, 8, 8)
    exact = grid(x)
    assert np.array_equal(grid(x.clone().requires_grad_()), exact)
    assert np.abs(grid(x.bfloat16()).astype(int) - exact).max() <= 1
    assert np.array_equal(grid(x.double()), exact)


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (1, 8, 8), (4, 2)])
def test_what_is_no_batch_of_images_is_refused(shape):
    with pytest.raises(ValueError, match=r"a grid needs images \(N, C, H, W\), at least one"):
        grid(torch.zeros(shape))


# -- pairs and strips
# --------------------------------------------------------------------------------------------


def test_pairs_show_each_original_above_its_reconstruction():
    originals = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 8, 8) / 10
    picture = comparison_grid(originals, originals + 0.5, columns=3)
    band = 2 * 48 + 3 * GAP
    assert picture.shape == (2 * band + GAP, MARGIN + 3 * 52 + GAP, 3)

    def value(band_number, row, column):
        top = band_number * (band + GAP) + GAP + row * 52
        left = MARGIN + GAP + column * 52
        block = picture[top : top + 48, left : left + 48]
        assert (block == block[0, 0]).all()
        return int(block[0, 0, 0])

    for i in range(5):
        assert value(i // 3, 0, i % 3) == round(255 * i / 10)
        assert value(i // 3, 1, i % 3) == round(255 * (i / 10 + 0.5))
    assert value(1, 0, 2) == value(1, 1, 2) == BACKGROUND, "the sixth place is empty"


def test_the_rows_of_pairs_have_names():
    picture = comparison_grid(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8))
    margin = picture[:, :MARGIN]
    first, second = margin[GAP : GAP + 48], margin[GAP + 52 : GAP + 100]
    assert (first > 220).any()
    assert (second > 220).any()
    assert not np.array_equal(first, second)
    bounds = np.nonzero((margin != BACKGROUND).any((0, 2)))[0]
    assert bounds[0] > 1, "the names are not cut off"
    assert bounds[-1] < MARGIN - 2


def test_names_of_rows_and_columns_are_repeated_beside_the_same_grid():
    cells = grid(torch.rand(8, 1, 8, 8), columns=4)
    named = with_names(cells, (2, 4), ["data", "a longer name"], ["input", "output"])
    left, top = named.shape[1] - cells.shape[1], named.shape[0] - cells.shape[0]
    assert left > MARGIN
    assert top == HEADER
    assert np.array_equal(named[top:, left:], cells)
    above = named[:top, left + GAP // 2 :]
    first, second, third = (above[:, 52 * i : 52 * (i + 1)] for i in range(3))
    assert np.array_equal(first, third)
    assert not np.array_equal(first, second)
    for part in (named[:, :left], named[:top]):
        places = np.nonzero((part != BACKGROUND).any(2))
        assert all(found.min() > 0 for found in places)
        assert all(found.max() < size - 1 for found, size in zip(places, part.shape, strict=False)), "not cut off"
    assert np.array_equal(with_names(cells, (2, 4), (), ()), cells)


@pytest.mark.parametrize(
    ("name", "kind", "of"),
    [
        ("pix2pix", "pictures", "column_names"),
        ("mae", "image", "row_names"),
        ("simclr", "image", "row_names"),
        ("diffusion", "image", "row_names"),
        ("masked_diffusion", "image", "row_names"),
    ],
)
def test_visuals_name_what_they_compare(name: str, kind: str, of: str) -> None:
    model = make(name, SPECS[kind]).eval()
    with torch.no_grad():
        *_, visual = model.visuals(examples(SPECS[kind], 8))
    names = getattr(visual, of)
    cells = visual.columns if of == "column_names" else len(visual.tensor) / visual.columns
    assert cells % len(names) == 0
    plain = renderer_of(visual.space).render(visual.tensor, visual.columns)
    assert VisualsView().draw(visual).size > plain.size


def test_pairs_must_match():
    with pytest.raises(ValueError, match="must have the same shape, not"):
        comparison_grid(torch.zeros(2, 1, 8, 8), torch.zeros(3, 1, 8, 8))


def test_a_walk_is_a_row():
    walks = torch.rand(3, 5, 3, 8, 8)
    picture = interpolation_grid(walks)
    assert picture.shape == (3 * 52 + GAP, 5 * 52 + GAP, 3)
    assert np.array_equal(picture, grid(walks.view(15, 3, 8, 8), columns=5))
    assert np.array_equal(cell(picture, 1, 4), cell(grid(walks[1, 4:])))


# -- density
# --------------------------------------------------------------------------------------------------


def inner(picture):
    return picture[GAP:-GAP, GAP:-GAP]


def brightest(picture):
    """(x, y) in [-1, 1]², y upwards, of the brightest pixels."""
    luma = inner(picture).astype(int).sum(-1)
    rows, columns = np.nonzero(luma == luma.max())
    side = luma.shape[0]
    return (columns.mean() + 0.5) / side * 2 - 1, 1 - (rows.mean() + 0.5) / side * 2


@pytest.mark.parametrize("place", [(0.0, 0.0), (2.0, 1.0), (-1.5, 2.2), (0.3, -2.4)])
def test_points_are_where_they_are(place):
    picture = density(torch.tensor([place]).repeat(64, 1))
    assert picture.shape == (384 + 2 * GAP, 384 + 2 * GAP, 3)
    x, y = brightest(picture)
    assert (x * 2.5, y * 2.5) == pytest.approx(place, abs=2.6 / 48)
    lit = (inner(picture).sum(-1) > 0).sum()
    assert lit == 8 * 8, "one cell"
    assert (picture[:GAP] == BACKGROUND).all()


def test_brightness_is_the_square_root_of_the_count():
    points = torch.cat([torch.tensor([[1.0, 1.0]]).repeat(400, 1), torch.tensor([[-1.0, -1.0]]).repeat(100, 1)])
    picture = inner(density(points, size=64))
    colours = {tuple(c) for c in picture.reshape(-1, 3).tolist()}
    assert colours == {(0, 0, 0), (255, 255, 255), (214, 74, 72)}, "none, all, and half of the scale"


def test_the_scale_gets_brighter_all_the_way():
    from zoo.viz.images import coloured

    colours = coloured(torch.linspace(0, 1, 101)[None])[0].astype(float)
    luma = colours @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luma) > 0).all()
    assert (luma[0], luma[-1]) == pytest.approx((0, 255))


def test_more_points_make_finer_cells():
    for n, cells in ((10, 48), (1000, 48), (4000, 96), (50_000, 192)):
        picture = inner(density(torch.rand(n, 2, generator=torch.Generator().manual_seed(0)) * 5 - 2.5))
        side = 384 // cells
        blocks = picture.reshape(cells, side, cells, side, 3)
        assert (blocks == blocks[:, :1, :, :1]).all()


def test_points_outside_are_left_out_and_broken_ones_are_announced():
    points = torch.tensor([[0.1, 0.1], [9.0, 0.0], [0.0, -9.0]])
    assert np.array_equal(inner(density(points)), inner(density(points[:1])))
    broken = torch.cat([points, torch.tensor([[float("nan"), 0.0]])])
    picture = density(broken)
    assert np.array_equal(inner(picture), inner(density(points)))
    assert (picture[:GAP] == BROKEN).all()
    assert (inner(density(torch.zeros(0, 2))) == 0).all()
    assert (inner(density(torch.full((3, 2), 9.0))) == 0).all()


def test_more_dimensions_are_shown_by_two():
    x = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(density(x), density(x[:, :2]))
    swap = torch.eye(5)[:, [3, 1]]
    assert np.array_equal(density(x, plane=swap), density(x[:, [3, 1]]))
    line = density(x[:, :1])
    assert set(np.nonzero(inner(line).any((1, 2)))[0]) <= set(range(384 // 2 - 8, 384 // 2 + 8))
    with pytest.raises(ValueError, match=r"a density needs points \(N, D\)"):
        density(torch.zeros(3, 1, 8, 8))


def test_the_plane_of_largest_spread():
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))
    scales = torch.tensor([5.0, 3.0, 0.1, 0.1, 0.1, 0.1])
    x = torch.randn(4000, 6, generator=torch.Generator().manual_seed(2)) * scales @ basis.T + 7
    plane = principal_plane(x)
    assert plane.shape == (6, 2)
    torch.testing.assert_close(plane.T @ plane, torch.eye(2), atol=1e-5, rtol=0)
    assert ((plane * basis[:, :2]).sum(0).abs() > 0.99).all()
    assert torch.allclose(principal_plane(-x), plane, atol=1e-4), "its signs do not depend on chance"


# -- files --------------------------------------------------------------------------------------------------


def test_a_file_is_there_completely_or_not_at_all(tmp_path, monkeypatch):
    picture = grid(torch.rand(4, 3, 8, 8))
    path = tmp_path / "samples" / "000100.png"
    save_png(path, picture)
    assert np.array_equal(np.asarray(Image.open(path)), picture)
    assert stat.S_IMODE(path.stat().st_mode) & 0o444

    before = path.read_bytes()

    def full(self, file, *args, **options):
        file.write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_png(path, np.zeros_like(picture))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name], "no rest is left"
