"""Pairs of pictures and two domains: partners, splits, mirror images, and folders that do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PIL

from zoo.core.errors import DataError
from zoo.core.spaces import Image, Unpaired
from zoo.core.spec import DataSpec
from zoo.data.image.drawings import outlines
from zoo.data.image.picture_pairs import PicturePairs
from zoo.data.image.two_domains import TwoDomains
from zoo.data.loader import make_generator


def folders(root: Path, n: int = 30) -> dict[str, str]:
    """Grey sources and colour targets: both hold the number of the pair in their pixels, darker to the right."""
    for side, suffix in (("source", ".png"), ("target", ".bmp")):
        (root / side).mkdir(parents=True)
        for number in range(n):
            pixels = np.full((6, 8), 4 * number, np.uint8)
            pixels[:, 4:] //= 2
            picture = PIL.fromarray(pixels if side == "source" else np.stack([pixels, pixels, 255 - pixels], 2))
            picture.save(root / side / f"{number:03}{suffix}")
    return {"source": str(root / "source"), "target": str(root / "target")}


def fetch(data: PicturePairs | TwoDomains, split: str, n: int, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return data.fetch(getattr(data, split), torch.arange(n), make_generator(3), train=train)


@pytest.mark.parametrize("memory", [4.0, 0.0])
def test_partners_have_equal_names(tmp_path: Path, memory: float) -> None:
    data = PicturePairs(**folders(tmp_path), batch_size=4, memory_gb=memory)
    data.setup()
    assert data.spec == DataSpec(Image(3, 6, 8), Image(1, 6, 8), name="picture_pairs")
    sizes = [len(split[0]) for split in (data.train, data.val, data.test)]
    assert sum(sizes) == 30
    assert min(sizes) >= 2
    seen = []
    for split, size in zip(("train", "val", "test"), sizes, strict=True):
        x, y = fetch(data, split, size, train=False)
        assert torch.equal(x[:, :1], y), "the same number in both pictures"
        assert torch.equal(x[:, 2:], 1 - y)
        seen += (y[:, 0, 0, 0] * 255 / 4).round().tolist()
    assert sorted(seen) == list(range(30)), "every pair is in one split"


def test_both_pictures_of_a_pair_are_mirrored(tmp_path: Path) -> None:
    given = folders(tmp_path)
    data = PicturePairs(**given, batch_size=4, flip=True)
    data.setup()
    x, y = fetch(data, "train", 20, train=True)
    assert torch.equal(x[:, :1], y)
    mirrored = y[1:, 0, 0, 0] < y[1:, 0, 0, -1]
    assert 0 < mirrored.float().mean() < 1
    domains = TwoDomains(**given, batch_size=4, flip=True)
    domains.setup()
    x, y = fetch(domains, "train", 20, train=True)
    one, two = (side[:, 0, 0, 0] < side[:, 0, 0, -1] for side in (x, y))
    assert not torch.equal(one, two), "negative control: domains are mirrored on their own"


def test_pictures_without_partner_are_left_out_and_reported(tmp_path: Path, caplog) -> None:
    given = folders(tmp_path)
    (tmp_path / "source" / "007.png").unlink()
    data = PicturePairs(**given)
    assert "1 pictures without partner in the other folder, such as 007" in caplog.text
    assert len(data.sides[0].listing.files) == len(data.sides[1].listing.files) == 29


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    given = folders(tmp_path / "pairs")
    for side in ("source", "target"):
        with pytest.raises(DataError, match=f"data.{side}=.*nowhere: not a folder"):
            TwoDomains(**given | {side: str(tmp_path / "nowhere")})
    with pytest.raises(DataError, match=r"data.source=.*: without data.target"):
        PicturePairs(source=given["source"])
    with pytest.raises(DataError, match=r"data.target=.*: without data.source"):
        TwoDomains(target=given["target"])
    PIL.new("L", (6, 8)).save(tmp_path / "pairs" / "target" / "003.png")
    with pytest.raises(DataError, match="two pictures are named 003"):
        PicturePairs(**given)
    other = folders(tmp_path / "others")
    for file in Path(other["source"]).iterdir():
        file.rename(file.with_stem(f"a{file.stem}"))
    with pytest.raises(DataError, match=r"no picture has the name of one in .*data=two_domains"):
        PicturePairs(**other)
    assert TwoDomains(**other).spec.condition == Unpaired(Image(1, 6, 8))


def test_an_unreadable_picture_is_not_replaced_by_another(tmp_path: Path) -> None:
    given = folders(tmp_path)
    data = PicturePairs(**given, batch_size=4, memory_gb=0.0)
    data.setup()
    file = Path(given["source"]) / data.sides[1].listing.files[int(data.train[1][0])]
    file.write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read"):
        fetch(data, "train", 4, train=True)


def test_partners_are_drawn_anew_for_each_batch(tmp_path: Path) -> None:
    """Uniformly, and by the batch's own randomness; the target is the row that was asked for."""
    data = TwoDomains(**folders(tmp_path), batch_size=4)
    data.setup()
    n = len(data.train[0])
    rows = torch.arange(n)
    draws = [data.fetch(data.train, rows, make_generator(seed), train=True) for seed in (0, 0, 1)]
    assert torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][1], draws[2][1])
    assert torch.equal(draws[0][0], draws[2][0])
    own = data.fetch(data.train, rows, make_generator(0), train=False)
    assert torch.equal(own[0], draws[0][0])
    many = torch.cat([data.fetch(data.train, rows, make_generator(s), train=True)[1][:, 0, 0, 0] for s in range(200)])
    counts = torch.unique((many * 255).round(), return_counts=True)[1]
    assert len(counts) == n, "every source picture"
    assert ((counts - 200).abs() < 5 * 200**0.5).all()
    held = {float(v) for v in fetch(data, "val", len(data.val[0]), train=False)[1][:, 0, 0, 0]}
    assert not held & {float(v) for v in many}, "no picture of the validation"


def test_drawn_pairs_and_domains() -> None:
    pairs, domains = PicturePairs(), TwoDomains()
    for data in (pairs, domains):
        data.setup()
        x, y = fetch(data, "val", 40, train=False)
        data.spec.x.validate(x)
        data.spec.condition.validate(y)
    x, y = fetch(pairs, "val", 40, train=False)
    filled = 1 - x.amin(1, keepdim=True)
    inside = filled > 0.5
    assert (y[~(filled > 0)] == 0).all(), "an outline is a part of its shape"
    assert 0.2 < (y[inside] == 0).float().mean() < 0.8, "its inside is empty"
    assert {int(k) for k in x.mean((2, 3)).argmax(1)} == {0, 1, 2}, "red, green and blue shapes"
    x, y = fetch(domains, "val", 40, train=False)
    black, orange = 1 - y[:, :1], (x[:, :1] - 26 / 255) / (1 - 26 / 255)
    torch.testing.assert_close(black, orange, atol=0.01, rtol=0)
    assert not set(domains.train[0].tolist()) & set(domains.train[1].tolist()), "training domains share no shape"
    x, y = fetch(domains, "train", 40, train=True)
    assert (1 - y[:, :1] - (x[:, :1] - 0.1) / 0.9).abs().mean() > 0.02, "negative control: training is unpaired"


def test_an_outline_is_the_shape_without_its_inside() -> None:
    x = torch.zeros(1, 1, 7, 7)
    x[..., 1:6, 1:6] = 1
    wanted = x.clone()
    wanted[..., 2:5, 2:5] = 0
    assert torch.equal(outlines(x), wanted)


def test_specs_are_plain_values() -> None:
    for data in (PicturePairs(), TwoDomains()):
        assert DataSpec.from_dict(data.spec.to_dict()) == data.spec
