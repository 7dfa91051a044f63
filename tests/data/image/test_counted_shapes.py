"""Captions that count what pictures show, and splits without common combinations."""

import pytest
import torch
from scipy import ndimage

import zoo
from zoo.data.image.captioned_shapes import COLOURS
from zoo.data.image.counted_shapes import HELD_OUT, scene_of


@pytest.fixture(scope="module")
def data():
    found = zoo.create_data("counted_shapes", batch_size=32)
    found.setup()
    return found


def captions(data, name: str) -> list[str]:
    return [data.tokenizer.decode(t for t in row.tolist() if t >= 0) for row in getattr(data, name)[1]]


def test_captions_parse_back_to_their_scenes(data) -> None:
    assert len(set(data.captions)) == len(data.scenes) == 2592
    assert [scene_of(caption) for caption in data.captions] == data.scenes
    assert "two red squares left of a blue circle" in data.captions
    for wrong in ("two red square above a blue circle", "a red squares above a blue circle", "two red squares"):
        with pytest.raises(ValueError, match="not of the grammar"):
            scene_of(wrong)


def test_training_never_shows_the_held_out_combinations_and_every_test_picture_does(data) -> None:
    def of(text: str) -> set[tuple[str, str]]:
        words = text.split()
        return {(words[0], words[2].removesuffix("s")), (words[-3], words[-1].removesuffix("s"))}

    train, val, test = (captions(data, name) for name in ("train", "val", "test"))
    assert not any(of(text) & set(HELD_OUT) for text in train + val)
    assert all(of(text) & set(HELD_OUT) for text in test)
    assert {word for text in test for word in text.split()} <= {word for text in train for word in text.split()}


@pytest.mark.parametrize("name", ["train", "test"])
def test_numbers_and_places_are_counted_in_pictures(data, name: str) -> None:
    """A judge without the renderer: connected pixels that are nearer to a colour than to the background."""
    x = data.fetch(getattr(data, name), torch.arange(120), torch.Generator(), train=False)[0]
    judged = 0
    for picture, caption in zip(x, captions(data, name)[:120], strict=True):
        scene = scene_of(caption)
        if scene[1] == scene[5]:
            continue  # groups of one colour
        centers = []
        for count, colour, _ in (scene[:3], scene[4:]):
            palette = torch.tensor(list(COLOURS.values())[colour]).view(3, 1, 1) / 255
            pure = (picture - palette).abs().amax(0) < 0.25
            assert ndimage.label(pure.numpy())[1] == count + 1, caption
            centers.append(pure.nonzero().float().mean(0))
        along = 1 - scene[3]  # column for "left of", row for "above"
        assert centers[0][along] < centers[1][along], caption
        judged += 1
    assert judged > 60


def test_sizes_do_not_depend_on_the_number(data) -> None:
    """The ink of one, two and three squares is as 1 : 2 : 3, so the number cannot be read from a single shape."""
    ink = []
    for count in range(3):
        scenes = torch.tensor([[count, 0, 1, 0, 0, 2, 0]]).expand(400, -1)
        x = data.draw(scenes, torch.Generator().manual_seed(0)).float()
        ink.append(float((x[:, 0] - 20).clamp(min=0)[:, :, :12].sum((1, 2)).mean()))
    assert ink[1] / ink[0] == pytest.approx(2, rel=0.05)
    assert ink[2] / ink[0] == pytest.approx(3, rel=0.05)
