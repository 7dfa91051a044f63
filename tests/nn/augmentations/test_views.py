"""Random views: identities, crops of a ramp in closed form, and the law of their areas and mirrors."""

import math

import pytest
import torch

import zoo
from zoo.core.errors import ConfigError
from zoo.core.spaces import Image, Vector
from zoo.nn.augmentations.views import RandomViews, random_crop


def ramp(n: int) -> torch.Tensor:
    """Images (n, 1, 9, 12) whose values are the coordinate to the right, from -1 to 1."""
    row = (torch.arange(12, dtype=torch.float64) + 0.5) / 6 - 1
    return row.expand(n, 1, 9, 12)


def test_the_whole_image_without_a_turn_is_the_image() -> None:
    torch.manual_seed(0)
    x = torch.rand(6, 3, 9, 12, dtype=torch.float64)
    torch.testing.assert_close(random_crop(x, 1.0), x, atol=1e-6, rtol=0)
    assert not torch.allclose(random_crop(x, 0.9), x, atol=1e-2)


def test_half_of_the_images_are_mirrored() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 9, 12, dtype=torch.float64).expand(800, -1, -1, -1)
    found = random_crop(x, 1.0, flip=True)
    same, mirrored = ((found - y).abs().flatten(1).amax(1) < 1e-5 for y in (x, x.flip(3)))
    assert bool((same ^ mirrored).all())
    assert abs(int(mirrored.sum()) - 400) < 4.5 * math.sqrt(200)


def test_crops_are_windows_inside_the_image_with_uniform_areas() -> None:
    """A crop of a ramp is a ramp: its slope is the crop's width, and its middle the crop's centre."""
    torch.manual_seed(0)
    found = random_crop(ramp(4000), 0.4)
    assert torch.allclose(found, found[:, :, :1], atol=1e-6), "rows are equal"
    steps = found[:, 0, 0, 2:-1] - found[:, 0, 0, 1:-2]
    assert torch.allclose(steps, steps[:, :1].expand_as(steps), atol=1e-6)
    scale = steps[:, 0] * 6
    area, centre = scale.square(), found[:, 0, 0, 5:7].mean(1)
    assert float((centre.abs() + scale).max()) < 1 + 1e-5
    assert 0.4 - 1e-5 < float(area.min()) < 0.41
    assert 0.99 < float(area.max()) < 1 + 1e-5
    assert float(area.mean()) == pytest.approx(0.7, abs=4.5 * 0.6 / math.sqrt(12 * 4000))


def test_a_turn_keeps_distances_of_images_that_are_not_square() -> None:
    """A disc in the centre stays a disc; a stretched one would not."""
    row, column = torch.meshgrid(torch.arange(60) - 29.5, torch.arange(90) - 44.5, indexing="ij")
    near = (row**2 + column**2).sqrt() < 28  # farther out, reflections come in
    disc = torch.sigmoid(20 - (row**2 + column**2).sqrt()).double().expand(5, 1, 60, 90)
    torch.manual_seed(0)
    assert float((random_crop(disc, 1.0, math.pi) - disc)[:, 0, near].abs().max()) < 0.05
    oval = torch.sigmoid(20 - (row**2 + (column / 1.5) ** 2).sqrt()).double().expand(5, 1, 60, 90)
    assert float((random_crop(oval, 1.0, math.pi) - oval)[:, 0, near].abs().max()) > 0.5


def test_views_differ_and_need_images() -> None:
    torch.manual_seed(0)
    views = RandomViews(zoo.DataSpec(Image(3, 6, 8)), cutout=0.3)
    x = torch.rand(4, 3, 6, 8) * 2 - 1
    assert views(x).shape == x.shape
    assert not torch.equal(views(x), views(x))
    with pytest.raises(ConfigError, match="changes images"):
        zoo.create_model("gan", data=zoo.DataSpec(Vector(2)), augmentation="views")
