"""Captions that describe their pictures, and splits without common combinations."""

import pytest
import torch

import zoo
from zoo.data.image.captioned_shapes import COLOURS, HELD_OUT, OVERSAMPLING, SHAPES, caption_of, masks, scene_of


@pytest.fixture(scope="module")
def data():
    found = zoo.create_data("captioned_shapes", batch_size=32)
    found.setup()
    return found


def captions(data, name: str) -> list[str]:
    return [data.tokenizer.decode(t for t in row.tolist() if t >= 0) for row in getattr(data, name)[1]]


def test_captions_parse_back_to_their_scenes(data) -> None:
    assert len(set(data.captions)) == len(data.scenes) == 288
    assert [scene_of(caption) for caption in data.captions] == data.scenes
    for wrong in ("a red circle", "a red circle below a blue square", "red circle left of a blue square here"):
        with pytest.raises(ValueError, match=r"not of the grammar|not in list"):
            scene_of(wrong)


def test_training_never_shows_the_held_out_combinations_and_every_test_picture_does(data) -> None:
    def of(text: str) -> list[tuple[str, str]]:
        words = text.split()
        return [(words[1], words[2]), (words[-2], words[-1])]

    train, val, test = (captions(data, name) for name in ("train", "val", "test"))
    assert not any(pair in HELD_OUT for text in train + val for pair in of(text))
    assert all(any(pair in HELD_OUT for pair in of(text)) for text in test)
    shown = {word for text in train for pair in of(text) for word in pair}
    assert shown == {*COLOURS, *SHAPES}, "each colour and each shape is known"


@pytest.mark.parametrize("name", ["train", "test"])
def test_colours_places_and_shapes_are_read_back_from_pictures(data, name: str) -> None:
    """A judge without the renderer: pixels of pure colour, their centre, and how much of their box they fill."""
    x = data.fetch(getattr(data, name), torch.arange(80), torch.Generator(), train=False)[0]
    right = wrong = 0
    for picture, caption in zip(x, captions(data, name)[:80], strict=True):
        first, second, relation = (scene := scene_of(caption))[:2], scene[3:], scene[2]
        if first[0] == second[0]:
            continue
        places = []
        for colour, shape in (first, second):
            palette = torch.tensor(list(COLOURS.values())[colour]).view(3, 1, 1) / 255
            pure = ((picture - palette).abs().amax(0) < 0.02).nonzero().float()  # (M, 2): row and column
            assert len(pure) > 8, "the colour is there"
            places.append(pure.mean(0))
            box = pure.amax(0) - pure.amin(0) + 1
            filled = len(pure) / float(box.prod())
            guess = 1 if filled > 0.93 else 0 if filled > 0.66 else 2
            right, wrong = right + (guess == shape), wrong + (guess != shape)
        along = 1 - relation  # column for "left of", row for "above"
        assert places[0][along] < places[1][along]
        assert caption_of(scene) == caption
    assert right / (right + wrong) > 0.9
    assert OVERSAMPLING > 1


def test_areas_of_shapes_are_those_of_formulas() -> None:
    grid = torch.linspace(-1.5, 1.5, 1501)
    areas = [float(mask.double().mean()) * 9 for mask in masks(grid[None], grid[:, None])]
    assert areas == pytest.approx([3.14159, 1.7**2, 1.8 * 1.8 / 1.8], rel=0.01)
