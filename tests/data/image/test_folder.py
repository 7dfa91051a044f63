"""Image folders: modes of images, layouts of folders, and errors."""

import os
import struct
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.config.compose import compose
from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.data.image import decode, listing
from zoo.data.image.folder import FILES_PER_TASK, Images
from zoo.runs.folder import RunFolder
from zoo.training.train import build_data, train

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def save(path, colour=RED, size=(6, 4), mode="RGB", **options):
    """Save an image of one colour and of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


def folder(root, n=20, **options):
    """Save images 00.png, 01.png ..., whose colour is their number."""
    for i in range(n):
        save(root / f"{i:02d}.png", (i, 0, 0), **options)
    return root


def colours(x):
    """Convert images of one colour to their colours in bytes."""
    assert torch.equal(x, x[:, :, :1, :1].expand_as(x)), "each picture has one colour"
    return (x[:, :, 0, 0] * 255).round().int().tolist()


def data(root, **settings):
    module = registry.build("data", {"name": "images", "path": str(root), "batch_size": 2, **settings})
    module.setup()
    return module


# -- one picture to one tensor -------------------------------------------------------------------------------


def test_a_picture_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    x = decode.read(tmp_path / "a.png", (4, 6), 3)
    assert x.dtype == torch.uint8
    assert np.array_equal(x.permute(1, 2, 0).numpy(), pixels)
    assert decode.probe(tmp_path / "a.png") == (4, 6, False)


MODES = {
    "grey.png": ("L", 76, {}),
    "bits.png": ("1", 1, {}),
    "palette.png": ("P", 7, {}),
    "colour.jpg": ("RGB", RED, {"quality": 100}),
    "print.jpg": ("CMYK", (0, 255, 255, 0), {"quality": 100}),
    "deep.png": ("I;16", 257 * 76, {}),
    "deep.tif": ("I;16", 257 * 76, {}),
    "deeper.tif": ("I", 257 * 76, {}),
    "alpha.png": ("RGBA", (255, 0, 0, 255), {}),
    "clear.png": ("RGBA", (255, 0, 0, 0), {}),
    "half.png": ("RGBA", (255, 0, 0, 128), {}),
    "grey_alpha.png": ("LA", (0, 128), {}),
    "lab.tif": ("LAB", (128, 128, 128), {}),
    "video.jpg": ("YCbCr", (76, 85, 255), {"quality": 100}),
    "cartoon.gif": ("P", 7, {}),
    "web.webp": ("RGB", RED, {"lossless": True}),
    "old.bmp": ("RGB", RED, {}),
    "plain.ppm": ("RGB", RED, {}),
    "UPPER.PNG": ("RGB", RED, {"format": "PNG"}),
}
EXPECTED = {  # colours that differ from red
    "grey.png": (76, 76, 76),
    "bits.png": WHITE,
    "palette.png": (7, 8, 9),
    "cartoon.gif": (7, 8, 9),
    "deep.png": (76, 76, 76),
    "deep.tif": (76, 76, 76),
    "deeper.tif": (76, 76, 76),
    "clear.png": WHITE,
    "half.png": (255, 127, 127),
    "grey_alpha.png": (127, 127, 127),
    "lab.tif": None,  # Pillow's colour management decides
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_eight_bits_opaque(tmp_path, name):
    mode, colour, options = MODES[name]
    image = Image.new(mode, (6, 4), colour)
    if mode == "P":
        image.putpalette([i + k for i in range(250) for k in range(3)])
    image.save(tmp_path / name, **options)
    x = decode.read(tmp_path / name, (4, 6), 3)
    assert x.shape == (3, 4, 6)
    expected = EXPECTED.get(name, RED)
    if expected:
        assert (x[:, 0, 0].int() - torch.tensor(expected)).abs().max() <= 2
    assert x.float().std((1, 2)).max() == 0
    grey = decode.read(tmp_path / name, (4, 6), 1)
    assert grey.shape == (1, 4, 6)
    if expected == RED:
        assert abs(int(grey[0, 0, 0]) - 76) <= 1  # ITU-R 601: 0.299 * 255


def test_transparent_palette_entries_are_white(tmp_path):
    image = Image.new("P", (4, 4), 3)
    image.putpalette([0, 0, 0] * 256)
    image.save(tmp_path / "a.gif", transparency=3)
    assert (decode.read(tmp_path / "a.gif", (4, 4), 3) == 255).all()


def test_sixteen_bits_keep_their_order_and_their_ends(tmp_path):
    ramp = np.linspace(0, 65_535, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    x = decode.read(tmp_path / "a.png", (16, 16), 1).flatten().tolist()
    assert x == list(range(256))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_cameras_held_any_way(tmp_path, orientation):
    """Orientation 1 is upright; the others are rotated by the EXIF tag."""
    turns = {  # what a viewer does to the stored pixels
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a.T, 2),
        8: lambda a: np.rot90(a),
    }
    stored = np.zeros((16, 24), np.uint8)
    stored[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    upright = turns[orientation](stored)
    assert decode.probe(tmp_path / "a.png") == (*upright.shape, True)
    assert np.array_equal(decode.read(tmp_path / "a.png", upright.shape, 1)[0].numpy(), upright)


def test_resized_to_cover_and_cropped_at_the_centre(tmp_path):
    stripes = np.zeros((10, 40, 3), np.uint8)
    stripes[:, 10:30] = 200  # the middle half
    Image.fromarray(stripes).save(tmp_path / "wide.png")
    assert (decode.read(tmp_path / "wide.png", (10, 20), 3) == 200).all()
    assert decode.read(tmp_path / "wide.png", (5, 10), 3)[0, 2, 2:-2].unique().tolist() == [200]
    Image.fromarray(stripes.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    assert (decode.read(tmp_path / "tall.png", (20, 10), 3) == 200).all()
    assert decode.read(tmp_path / "tall.png", (64, 64), 1).shape == (1, 64, 64), "small pictures grow"


def test_shrinking_does_not_alias(tmp_path):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    inner = decode.read(tmp_path / "a.png", (8, 8), 1)[0, 1:-1, 1:-1].float()
    assert (inner - 127.5).abs().max() < 6


def test_large_jpegs_decoded_at_a_fraction_look_the_same(tmp_path):
    y, x = np.mgrid[0:480, 0:640]
    smooth = np.stack([x / 640, y / 480, (x + y) / 1120], -1)
    Image.fromarray((smooth * 255).astype(np.uint8)).save(tmp_path / "a.jpg", quality=98)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")
    small, exact = (decode.read(tmp_path / f"a.{kind}", (32, 32), 3).int() for kind in ("jpg", "png"))
    assert (small - exact).abs().max() <= 3


def test_what_cannot_be_a_picture_is_refused(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="float pixels"):
        decode.read(tmp_path / "float.tif", (4, 4), 1)
    save(tmp_path / "large.png", size=(30, 40))
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match="30x40 pixels: more than the 1,000 that are safe"):
        decode.read(tmp_path / "large.png", (4, 4), 1)


# -- spec of a folder --------------------------------------------------------------------------------------


def test_size_and_channels_of_most_pictures(tmp_path):
    folder(tmp_path, 15, size=(6, 4))
    for i in range(5):
        save(tmp_path / f"other{i}.png", 9, (8, 8), "L")
    assert Images(path=str(tmp_path)).spec.shape == (3, 4, 6)
    assert Images(path=str(tmp_path), size=16).spec.shape == (3, 16, 16)
    assert Images(path=str(tmp_path), size=[16, 8], channels=1).spec.shape == (1, 16, 8)
    grey = tmp_path / "grey"
    for i in range(5):
        save(grey / f"{i}.png", 9, (8, 8), "L")
    spec = Images(path=str(grey)).spec
    assert spec.shape == (1, 8, 8)
    assert (spec.x.registered_name, spec.image.levels, spec.n_classes, spec.name) == ("image", 256, 0, "images")


def test_photographs_need_a_size(tmp_path):
    folder(tmp_path, 3, size=(2000, 1000))
    with pytest.raises(ZooError, match=r"are 1000x2000, a large size to learn. Set data.size=64"):
        _ = Images(path=str(tmp_path)).spec
    assert Images(path=str(tmp_path), size=8).spec.shape == (3, 8, 8)


@pytest.mark.parametrize("memory_gb", [4.0, 0.0], ids=["memory", "files"])
def test_batches_are_floats_with_labels(tmp_path, memory_gb):
    for i, name in enumerate(["cat", "dog", "emu"]):
        folder(tmp_path / name, 20 + i)
    module = data(tmp_path, memory_gb=memory_gb, batch_size=8)
    assert module.classes == ["cat", "dog", "emu"]
    assert module.spec.n_classes == 3
    sizes = [len(split[0]) for split in (module.train, module.val, module.test)]
    assert sum(sizes) == 63
    assert min(sizes) > 0
    seen = []
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        for x, y in loader:
            assert x.dtype == torch.float32
            assert x.shape[1:] == (3, 4, 6)
            assert y.dtype == torch.int64
            seen += [(colour[0], int(label)) for colour, label in zip(colours(x), y, strict=True)]
    left_out = sizes[0] % 8  # of the training set, the last incomplete batch
    assert len(set(seen)) == len(seen) == 63 - left_out
    assert set(seen) <= {(i, k) for k in range(3) for i in range(20 + k)}


def test_decoding_for_every_batch_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(30):
        Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).save(tmp_path / f"{i}.png")

    def batches(memory_gb):
        module = data(tmp_path, memory_gb=memory_gb, flip=True, size=8)
        loader = module.train_dataloader()
        return [b for _ in range(2) for b in loader] + list(module.val_dataloader())

    for (x, y), (x2, y2) in zip(batches(4.0), batches(0.0), strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_flipping_mirrors_half_of_the_training_pictures(tmp_path):
    half = np.zeros((2, 2, 3), np.uint8)
    half[:, 0] = 255
    for i in range(400):
        Image.fromarray(half).save(tmp_path / f"{i}.png")
    module = data(tmp_path, flip=True, batch_size=50)
    (x, _), *_ = module.train_dataloader()
    left, right = x[:, 0, 0, 0] == 1, x[:, 0, 0, 1] == 1
    assert torch.equal(left, ~right)
    all_left = torch.cat([x[:, 0, 0, 0] for x, _ in module.train_dataloader()]).mean()
    assert 0.35 < all_left < 0.65
    assert all((x[:, 0, 0, 0] == 1).all() for x, _ in module.val_dataloader())
    plain = data(tmp_path, batch_size=50)
    assert all((x[:, 0, 0, 0] == 1).all() for x, _ in plain.train_dataloader())


def names_of(module, split):
    return {module.listing.files[i] for i in module.listing.splits[split]}


def test_adding_pictures_moves_no_others(tmp_path):
    folder(tmp_path, 60)
    before = Images(path=str(tmp_path))
    for i in range(40):
        save(tmp_path / f"new{i}.png")
    after = Images(path=str(tmp_path))
    for split in ("train", "val", "test"):
        assert names_of(before, split) <= names_of(after, split)
    assert sum(len(names_of(after, split)) for split in ("train", "val", "test")) == 100


def test_the_fractions_are_those_asked_for(tmp_path):
    files = [f"{i}.png" for i in range(4000)]
    found = listing.assign_splits(tmp_path, files, {}, True, (0.2, 0.05))
    shares = {name: len(rows) / 4000 for name, rows in found.splits.items()}
    assert shares == pytest.approx({"train": 0.75, "val": 0.2, "test": 0.05}, abs=0.02)
    assert sorted(i for rows in found.splits.values() for i in rows) == list(range(4000))


LAYOUTS = {  # files -> (classes, {split: how many}, ignored); -1: some
    ("a.png", "b.png", "c.png", "d.png"): ([], None, 0),
    ("x/a.png", "x/b.png", "y/c.png", "y/d.png"): (["x", "y"], None, 0),
    ("x/deep/a.png", "x/b.png", "y/c.png"): (["x", "y"], None, 0),
    ("only/a.png", "only/b.png", "only/c.png"): ([], None, 0),  # one class is none
    ("photos/x/a.png", "photos/x/b.png", "photos/y/c.png"): (["x", "y"], None, 0),  # unpacked in a folder of its name
    ("photos/photos/train/x/a.png", "photos/photos/train/y/b.png", "photos/photos/val/y/c.png"): (
        ["x", "y"],
        {"train": 1, "val": 1, "test": 1},
        0,
    ),
    ("top.png", "x/b.png", "y/c.png"): ([], None, 0),
    ("train/a.png", "train/b.png", "val/c.png", "test/d.png"): ([], {"train": 2, "val": 1, "test": 1}, 0),
    ("Train/x/a.png", "Train/y/b.png", "valid/x/c.png", "testing/y/d.png"): (
        ["x", "y"],
        {"train": 2, "val": 1, "test": 1},
        0,
    ),
    ("train/a.png", "train/b.png", "train/c.png", "test/d.png"): ([], {"train": 2, "val": 1, "test": 1}, 0),
    ("train/x/a.png", "train/x/b.png", "train/y/c.png"): (["x", "y"], {"train": 1, "val": 1, "test": 1}, 0),
    ("train/a.png", "train/b.png", "val/c.png", "test/d.png", "extra/e.png", "f.png"): (
        [],
        {"train": 2, "val": 1, "test": 1},
        2,
    ),
    ("bus/a.png", "car/b.png", "train/c.png"): (["bus", "car", "train"], None, 0),
    ("val/a.png", "test/b.png", "other/c.png"): (["other", "test", "val"], None, 0),
}


@pytest.mark.parametrize("files", LAYOUTS, ids=" ".join)
def test_layouts(tmp_path, files):
    classes, sizes, ignored = LAYOUTS[files]
    for name in files:
        save(tmp_path / name)
    module = Images(path=str(tmp_path))
    assert module.classes == classes
    assert module.spec.n_classes == len(classes)
    found = module.listing
    assert found.ignored == ignored
    counts = {split: len(rows) for split, rows in found.splits.items()}
    assert min(counts.values()) > 0
    assert sum(counts.values()) == len(files) - ignored
    if sizes:
        assert counts == sizes
        for split, names in listing.SPLITS.items():
            if split in {"train"}:
                assert all({*f.lower().split("/")} & {*names} for f in names_of(module, split))
    for file, label in zip(found.files, found.labels, strict=True):
        assert not classes or f"{classes[label]}/" in file


def test_labels_can_be_switched_off(tmp_path):
    folder(tmp_path / "x", 3), folder(tmp_path / "y", 3)
    assert Images(path=str(tmp_path)).spec.n_classes == 2
    module = data(tmp_path, labels=False)
    assert module.spec.n_classes == 0
    assert module.train[1].sum() == 0


def test_hidden_files_are_passed_over_and_links_followed_once(tmp_path):
    folder(tmp_path / "real", 4)
    save(tmp_path / "real" / "._01.png")
    save(tmp_path / "real" / ".thumbnails" / "a.png")
    save(tmp_path / "real" / "__MACOSX" / "a.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(root)
    assert listing.list_files(root).files == [f"link/0{i}.png" for i in range(4)]


def of_the_zoo(caplog):
    """Warnings of the zoo, without those of libraries."""
    return [r for r in caplog.records if r.name.startswith("zoo") and r.levelname == "WARNING"]


def test_left_out_files_are_counted_on_the_console(tmp_path, caplog):
    folder(tmp_path, 12)
    for name in ("a.heic", "b.HEIC", "c.heic", "noname", "d.txt", ".hidden.png", "Thumbs.db", "@eaDir/01.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert len(Images(path=str(tmp_path)).listing.files) == 12
    (record,) = of_the_zoo(caplog)
    assert record.levelname == "WARNING", "the console shows warnings"
    assert "read 12 files; left out 3 .heic, 1 .txt, 1 no suffix: not images (.avif .bmp" in record.getMessage()


def test_links_to_images_of_the_folder_are_left_out(tmp_path):
    folder(tmp_path / "a", 4)
    (tmp_path / "z.png").symlink_to(tmp_path / "a" / "00.png")
    (tmp_path / "dead.png").symlink_to(tmp_path / "nothing.png")
    found = listing.list_files(tmp_path)
    assert found.files == [f"a/0{i}.png" for i in range(4)]
    assert (found.links, found.others) == (1, {".png": 1})


def test_copies_across_splits_are_counted(tmp_path, caplog):
    for split, numbers in (("train", range(12)), ("val", range(8, 14)), ("test", range(20, 24))):
        for i in numbers:
            save(tmp_path / split / f"{split}{i}.png", (i, 0, 0))
    data(tmp_path)
    (record,) = of_the_zoo(caplog)
    assert "4 validation images are also in the training split, such as val/val10.png as train/train10.png" in (
        record.getMessage()
    )
    assert record.levelname == "WARNING"


def test_lost_labels_and_other_sizes_are_told(tmp_path, caplog):
    folder(tmp_path / "x", 3), folder(tmp_path / "y", 3, size=(8, 8))
    save(tmp_path / "top.png", (200, 0, 0))
    assert data(tmp_path).spec.n_classes == 0
    told = [record.getMessage() for record in caplog.records]
    assert "no labels, because 1 images such as top.png are beside the folders" in told[0]
    assert "data.size=4x6: 57% of the images have it; those of 1 other sizes are resized and cropped" in told[1]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("labels.csv", "file_name,label\n" + "".join(f"{i:02d}.png,{i % 3 * 5}\n" for i in range(30))),
        ("metadata.jsonl", "".join(f'{{"file_name": "in/{i:02d}.png", "label": {i % 3 * 5}}}\n' for i in range(30))),
        ("kaggle.CSV", "id;age;category\n" + "".join(f"{i:02d};7;{i % 3 * 5}\n" for i in range(30))),
    ],
)
def test_classes_from_a_file(tmp_path, name, rows):
    folder(tmp_path / "in", 30)
    (tmp_path / name).write_text(rows)
    module = data(tmp_path, label_file=name)
    assert module.classes == ["0", "5", "10"]
    for batch in (*module.train_dataloader(), *module.val_dataloader(), *module.test_dataloader()):
        assert [colour[0] % 3 for colour in colours(batch.x)] == batch.y.tolist()


def test_mistakes_in_a_file_of_classes(tmp_path):
    folder(tmp_path, 12)
    refused(tmp_path, r"data\.label_file=.*none\.csv: no such file", label_file="none.csv")
    (tmp_path / "a.csv").write_text("file,kind\n00.png,x\n")
    refused(tmp_path, r"its columns are file, kind\. Name that of the files file_name", label_file="a.csv")
    (tmp_path / "a.csv").write_text("file,label\n00.png,x\n01.png,\n")
    refused(tmp_path, r"no class for 11 of 12 images, such as 01\.png", label_file="a.csv")


def test_transparency_is_a_channel_where_asked_for(tmp_path):
    for i in range(4):
        save(tmp_path / f"{i}.png", (i, 20, 30, 40), mode="RGBA")
    opaque, clear = data(tmp_path), data(tmp_path, channels=4)
    assert clear.spec.shape == (4, 4, 6)
    assert all(colour[1:] == [20, 30, 40] for colour in colours(next(iter(clear.train_dataloader())).x))
    assert all(colour[1] > 200 for colour in colours(next(iter(opaque.train_dataloader())).x)), "on white"
    save(tmp_path / "grey.png", 7, mode="L")
    assert decode.read(tmp_path / "grey.png", (4, 6), 4)[:, 0, 0].tolist() == [7, 7, 7, 255]


# -- errors -------------------------------------------------------------------------------------------------


def refused(root, match, **settings):
    with pytest.raises(ZooError, match=match):
        data(root, **settings)


def test_folders_without_pictures(tmp_path):
    refused(tmp_path / "none", r"data.path=.*none: not found. Give a folder of images")
    (tmp_path / "a.zip").write_bytes(b"")
    refused(tmp_path / "a.zip", r"a\.zip: a file\. Unpack it")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"0 images and nothing else. Give a folder with at least three")
    for name in ("a.txt", "b.txt", "c.csv", "LICENSE"):
        (tmp_path / "empty" / name).write_text("text")
    refused(tmp_path / "empty", r"0 images and 2 \.txt, 1 \.csv, 1 no suffix")
    folder(tmp_path / "few", 2)
    refused(tmp_path / "few", r"few: 2 images")
    with pytest.raises(ZooError, match=r"data: path must be set\. Add data\.path=VALUE"):
        registry.build("data", "images")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_listed(tmp_path):
    folder(tmp_path, 5)
    (tmp_path / "closed").mkdir(mode=0)
    refused(tmp_path, "cannot be listed")


def damage(root):
    """Write three unreadable image files."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(root / "cut.jpg")
    whole = (root / "cut.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "text.png").write_text("this is not a picture")
    (root / "zero.gif").write_bytes(b"")


def test_damaged_pictures_are_named_before_training(tmp_path):
    folder(tmp_path, 20)
    damage(tmp_path)
    reasons = r"cut\.jpg \(.*[tT]runcated.*\), text\.png \(not an image\), zero\.gif \(not an image\)"
    remedy = r"Repair or delete them, or leave them out with data\.on_error=skip\.$"
    refused(tmp_path, rf"^data.path=.*: 3 of 23 images cannot be read: {reasons}. {remedy}")
    refused(tmp_path, r": 2 of 23 .* text\.png .* zero\.gif", memory_gb=0.0)  # headers alone


def test_many_damaged_pictures_are_counted(tmp_path):
    folder(tmp_path, 5)
    for i in range(12):
        (tmp_path / f"bad{i:02d}.png").write_bytes(b"x")
    refused(tmp_path, r": 12 of 17 .*: bad00\.png .*, bad04\.png \([^,]*\) and 7 more. Repair")


def test_damaged_pictures_can_be_left_out(tmp_path, caplog):
    folder(tmp_path, 20)
    damage(tmp_path)
    with caplog.at_level("WARNING", logger="zoo"):
        module = data(tmp_path, on_error="skip", size=[4, 6])
    assert "3 of 23 images" in caplog.text
    assert sum(len(s[0]) for s in (module.train, module.val, module.test)) == 20


def test_pictures_found_damaged_during_training(tmp_path, caplog):
    folder(tmp_path, 20, size=(64, 64))
    whole = save(tmp_path / "zz.png", size=(64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:60])
    settings = {"memory_gb": 0.0, "val_fraction": 0.01, "test_fraction": 0.01, "size": 4}
    for on_error in ("raise", "skip"):  # damaged files must not end a run
        caplog.clear()
        module = data(tmp_path, **settings, on_error=on_error, batch_size=5)
        with caplog.at_level("WARNING", logger="zoo"):
            for _ in range(3):
                rows = [(x, y) for x, y in module.train_dataloader()]
        assert caplog.text.count("1 of 22 images") == caplog.text.count("cut.png") == 1, "once"
        assert {len(x) for x, _ in rows} == {5}


@pytest.mark.parametrize("memory_gb", [4.0, 0.0], ids=["memory", "files"])
def test_a_folder_that_changes_while_training(tmp_path, caplog, monkeypatch, memory_gb):
    monkeypatch.setattr(decode, "MAX_PIXELS", 10_000)
    folder(tmp_path, 40, size=(8, 8))
    module = data(tmp_path, memory_gb=memory_gb, size=4, batch_size=8)
    first = [x for x, _ in module.train_dataloader()]
    files = sorted(tmp_path.glob("*.png"))
    for path in files[::4]:
        path.unlink()
    for path in files[1::4]:
        path.write_bytes(b"something else")
    save(files[2], (1, 2, 3), (300, 200))  # larger than is safe
    save(files[3], 7, (3, 9), "L")
    save(tmp_path / "new.png")
    with caplog.at_level("WARNING", logger="zoo"):
        again = [x for _ in range(3) for x, _ in module.train_dataloader()]
    assert {x.shape for x in again} == {x.shape for x in first}
    assert ("cannot be read" in caplog.text) == (memory_gb == 0)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    if memory_gb:
        assert len(list(module.train_dataloader())) == len(first)
        return
    with pytest.raises(ZooError, match=r"data\.path=.* in a row cannot be read \(.*\)\. The folder changed"):
        list(module.train_dataloader())


def test_what_a_file_is_called_opens_no_other_format(tmp_path):
    """Pillow would open PostScript with Ghostscript, which runs commands in files."""
    folder(tmp_path, 5)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    refused(tmp_path, r"1 of 6 images .* a\.png \(not an image\)")


def test_nothing_that_can_be_read(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(b"x")
    refused(tmp_path, r"no readable image, 5 of 5 fail|no readable image", on_error="skip")
    refused(tmp_path, r"no readable image for the train split", on_error="skip", size=4, channels=1)


def test_decompression_bombs(tmp_path, monkeypatch):
    folder(tmp_path, 4)
    save(tmp_path / "bomb.png", size=(300, 300))
    monkeypatch.setattr(decode, "MAX_PIXELS", 10_000)
    refused(tmp_path, r"1 of 5 images .* bomb\.png \(300x300 pixels: more than", size=4)
    refused(tmp_path, r"1 of 5 images .* bomb\.png", size=4, memory_gb=0.0)


def test_settings_out_of_range(tmp_path):
    folder(tmp_path, 5)
    for settings, match in (
        ({"size": 0}, "size=0 is out of range"),
        ({"size": [4, -1]}, "out of range"),
        ({"size": 10**9}, "out of range: it must be greater than 0 and at most 16384"),
        ({"size": [4, 4, 4]}, r"data.size=\[4, 4, 4\]: not a size"),
        ({"channels": 2}, "channels=2 is not a choice"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "nothing left to train on"),
        ({"val_fraction": 0.0}, "out of range"),
        ({"batch_size": 50}, "data.batch_size=50: larger than the training set of images"),
    ):
        refused(tmp_path, match, **settings)


# -- real data ----------------------------------------------------------------------------------------------

ROOT = os.environ.get("ZOO_DATA")
CIFAR = Path(ROOT or "") / "cifar10-jpeg.zip"


@pytest.mark.skipif(not ROOT or not CIFAR.is_file(), reason="needs cifar10-jpeg.zip in the folder ZOO_DATA")
def test_cifar10_as_folders_of_jpegs(tmp_path):
    with zipfile.ZipFile(CIFAR) as archive:
        taken = {}
        for name in archive.namelist():
            key = tuple(name.split("/")[-3:-1])
            if name.endswith(".jpg") and taken.setdefault(key, 0) < 12:
                taken[key] += 1
                archive.extract(name, tmp_path)
    root = next(p.parent for p in tmp_path.rglob("train"))
    module = data(root, batch_size=16)
    spec = module.spec
    assert (spec.shape, spec.n_classes) == ((3, 32, 32), 10)
    assert module.classes[0] == "airplane"
    assert len(module.test[0]) == 120
    assert len(module.train[0]) + len(module.val[0]) == 120
    assert names_of(module, "test") == {f for f in module.listing.files if f.startswith("test/")}
    x, y = next(iter(module.train_dataloader()))
    assert x.shape == (16, 3, 32, 32)
    assert 0.3 < x.mean() < 0.65
    assert len(y.unique()) > 3
    streamed = data(root, batch_size=16, memory_gb=0.0)
    x2, y2 = next(iter(streamed.train_dataloader()))
    assert torch.equal(x, x2)
    assert torch.equal(y, y2)


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder is listed once, however often the spec is read."""
    Image.new("L", (4, 4)).save(tmp_path / "first.png")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(40):
            os.link(tmp_path / "first.png", tmp_path / name / f"{number}.png")
    (tmp_path / "first.png").unlink()
    looks: list[str] = []
    scandir = os.scandir

    def counting(path):
        looks.append(os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    data = Images(path=str(tmp_path), batch_size=4)
    _ = data.spec, data.spec
    data.setup()
    next(iter(data.train_dataloader()))
    assert len(looks) == len(set(looks)) == 3


def test_files_are_read_by_several_threads_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.data.image.folder.n_threads", lambda: 4)
    seen = set()

    def look(path):
        seen.add(threading.get_ident())
        time.sleep(0.001)
        return path.name

    names = [f"{i}.png" for i in range(5 * FILES_PER_TASK + 3)]
    assert Images(path=str(tmp_path))._each(look, names, "headers") == names
    assert len(seen) > 1


def test_a_recipes_batch_is_at_most_a_quarter_of_a_small_folder(tmp_path, capsys):
    """The header and the record contain it; a size above the training set is an error."""
    data = ["model=vae", "data=images", f"data.path={folder(tmp_path / 'pictures', 60, size=(8, 8))}"]
    train(compose(*data, "trainer=smoke"), str(tmp_path / "run"))
    used = RunFolder(tmp_path / "run").config()["data"]["batch_size"]
    n = 4 * used
    assert used == 12
    assert f"{used} instead of 256: a quarter of" in capsys.readouterr().out
    assert len(build_data(compose(*data)).train[0]) // 4 == n // 4
    with pytest.raises(ZooError, match="larger than the training set"):
        build_data(compose(*data, "data.batch_size=100"))


def named_at_random(root, n, seed):
    names = torch.randint(10**9, (n,), generator=torch.Generator().manual_seed(seed)).tolist()
    return sorted(f"{name}.png" for name in names)


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7, 10, 20, 60])
def test_every_split_of_a_small_folder_has_images(tmp_path, n):
    for seed in range(200):
        found = listing.assign_splits(tmp_path, named_at_random(tmp_path, n, seed), {}, True, (0.1, 0.1))
        sizes = {name: len(rows) for name, rows in found.splits.items()}
        assert sum(sizes.values()) == n
        assert min(sizes.values()) >= (2 if n >= 6 else 1), (seed, sizes)


@pytest.mark.parametrize("layout", [("train/a.png",), ("train/a.png", "train/b.png", "test/c.png")])
def test_small_laid_out_folders(tmp_path, layout):
    files = sorted([*layout, "val/x.png", "val/y.png"])
    if len(layout) == 1:
        with pytest.raises(ZooError, match="too few images"):
            listing.assign_splits(tmp_path, files, {}, True, (0.1, 0.1))
    else:
        found = listing.assign_splits(tmp_path, files, {}, True, (0.1, 0.1))
        assert {name: len(rows) for name, rows in found.splits.items()} == {"train": 2, "val": 2, "test": 1}


def test_values_of_more_than_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.full((4, 6), 1_000_000, np.int32)).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match=r"values from 1,000,000 to 1,000,000: more than 16 bits"):
        decode.read(tmp_path / "deep.tif", (4, 6), 1)
    Image.fromarray(np.full((4, 6), -5, np.int32)).save(tmp_path / "negative.tif")
    with pytest.raises(ValueError, match="values from -5"):
        decode.read(tmp_path / "negative.tif", (4, 6), 1)


def test_twelve_bits_of_a_tiff_use_the_whole_range(tmp_path):
    """Pillow reads such files, and writes none: two rows of two pixels, 4095 and 0, then 2048 and 4095."""
    pixels = bytes([0xFF, 0xF0, 0x00, 0x80, 0x0F, 0xFF])
    tags = [(256, 3, 2), (257, 3, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 2),
            (279, 4, len(pixels))]  # fmt: skip
    head = struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + struct.pack("<H", len(tags))
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags) + struct.pack("<I", 0)
    (tmp_path / "camera.tif").write_bytes(head + body)
    assert decode.read(tmp_path / "camera.tif", (2, 2), 1).flatten().tolist() == [255, 0, 128, 255]


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (256, 12), (4095, 12), (4096, 16), (65_535, 16)])
def test_twelve_bits_in_sixteen_are_recognised_for_the_whole_folder(tmp_path, caplog, top, bits):
    """One image alone is dark; the largest value of the folder decides for all."""
    for number in range(6):
        pixels = np.full((4, 6), 100, np.uint16)
        if number == 3:
            pixels[0, 0] = top
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")

    def values(module):
        loaders = module.train_dataloader(), module.val_dataloader(), module.test_dataloader()
        return {round(255 * float(v)) for loader in loaders for x, _ in loader for v in x.flatten()}

    with caplog.at_level("WARNING"):
        module = data(tmp_path)
    assert module.bits == bits
    assert values(module) == {round(255 * value / (2**bits - 1)) for value in (100, top)}
    assert (f"data.bits={bits}: the largest value of the images with 16 bits is {top:,}" in caplog.text) == (bits < 16)
    assert values(data(tmp_path, bits=16)) == {round(255 * value / 65_535) for value in (100, top)}


def test_a_value_above_the_bits_that_were_set_is_named(tmp_path):
    for number in range(4):
        Image.fromarray(np.full((4, 6), 5000, np.uint16)).save(tmp_path / f"{number}.png")
    refused(tmp_path, r"more than 12 bits\. Set data\.bits=16", bits=12)
