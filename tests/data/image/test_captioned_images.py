"""Folders of images with captions: both conventions, splits, errors, and models that learn from them."""

import json
import re
import tarfile

import pytest
import torch
from PIL import Image

import zoo
from zoo.config.compose import compose
from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.data.image import captions

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 230), "white": (250, 250, 250)}
NAMES = list(COLOURS)


def colour_of(i):
    return NAMES[i % len(NAMES)]


def pictures(root, n=40, size=(8, 8)):
    """Save n pictures of one colour each: picture i has `colour_of(i)`, and the value i in one corner."""
    root.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        image = Image.new("RGB", size, COLOURS[colour_of(i)])
        image.putpixel((0, 0), (i, i, i))
        image.save(root / f"{i:02d}.png")
    return root


def with_metadata(root, n=40):
    pictures(root, n)
    rows = [{"file_name": f"{i:02d}.png", "text": f"a {colour_of(i)} square"} for i in range(n)]
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def with_texts(root, n=40):
    pictures(root, n)
    for i in range(n):
        (root / f"{i:02d}.txt").write_text(f"a {colour_of(i)} square\n")
    return root


def data(root, **settings):
    module = registry.build("data", {"name": "captioned_images", "path": str(root), "batch_size": 4, **settings})
    module.setup()
    return module


def pairs(module):
    """(number of the picture, caption) of every sample of each split."""
    found = {}
    for name in ("train", "val", "test"):
        split = getattr(module, name)
        x, y = module.fetch(split, torch.arange(len(split[0])), torch.Generator(), train=False)
        numbers = (x[:, 0, 0, 0] * 255).round().int().tolist()
        texts = [module.tokenizer.decode(t for t in row if t >= 0) for row in y.tolist()]
        found[name] = list(zip(numbers, texts, strict=True))
    return found


@pytest.mark.parametrize("memory_gb", [4, 0])
@pytest.mark.parametrize("make", [with_metadata, with_texts])
def test_each_picture_has_its_caption(tmp_path, make, memory_gb):
    module = data(make(tmp_path), memory_gb=memory_gb)
    found = pairs(module)
    assert sorted(i for part in found.values() for i, _ in part) == list(range(40))
    assert all(text == f"a {colour_of(i)} square" for part in found.values() for i, text in part)
    assert all(len(part) >= 2 for part in found.values())
    assert module.spec.shape == (3, 8, 8)
    assert module.spec.condition.length == 3


def test_both_conventions_give_the_same_samples(tmp_path):
    one, other = pairs(data(with_metadata(tmp_path / "a"))), pairs(data(with_texts(tmp_path / "b")))
    assert one == other


def test_several_captions_stay_in_one_split(tmp_path):
    pictures(tmp_path, 30)
    rows = [{"file_name": f"{i:02d}.png", "text": [f"a {colour_of(i)} square", colour_of(i)]} for i in range(30)]
    rows += [{"file_name": f"{i:02d}.png", "text": f"{colour_of(i)}  colour\n"} for i in range(30)]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = pairs(data(tmp_path))
    sets = [{i for i, _ in part} for part in found.values()]
    assert len(set.union(*sets)) == sum(map(len, sets)) == 30, "no picture is in two splits"
    every = [pair for part in found.values() for pair in part]
    assert len(every) == 90
    assert {text for i, text in every if i == 1} == {"a green square", "green", "green colour"}
    (tmp_path / "metadata.jsonl").unlink()
    for i in range(30):
        (tmp_path / f"{i:02d}.txt").write_text(f"a {colour_of(i)} square\n\n{colour_of(i)}\n{colour_of(i)} colour")
    assert sorted(every) == sorted(pair for part in pairs(data(tmp_path)).values() for pair in part)


def test_split_folders_with_a_metadata_file_each(tmp_path):
    for name, n in (("train", 20), ("test", 8)):
        with_metadata(tmp_path / name, n)
    (tmp_path / "train" / "metadata.jsonl").unlink()
    rows = "".join(f"{i:02d}.png,a {colour_of(i)} square\n" for i in range(20))
    (tmp_path / "train" / "metadata.csv").write_text("file_name,text\n" + rows)
    found = pairs(data(tmp_path))
    assert len(found["test"]) == 8
    assert all(text == f"a {colour_of(i)} square" for part in found.values() for i, text in part)


def test_an_archive_is_read_as_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    with_texts(tmp_path / "in")
    with tarfile.open(tmp_path / "shard-000.tar", "w") as archive:
        for path in sorted((tmp_path / "in").iterdir()):
            archive.add(path, path.name)
    for _ in range(2):  # the second time it is unpacked already
        assert pairs(data(tmp_path / "shard-000.tar")) == pairs(data(tmp_path / "in"))
    assert len(list((tmp_path / "cache" / "unpacked").iterdir())) == 1
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    refused(tmp_path / "bad.tar", r"data\.path=.*bad\.tar: not an archive that can be read")
    with tarfile.open(tmp_path / "out.tar", "w") as archive:
        archive.add(tmp_path / "in" / "00.png", "../00.png")
    refused(tmp_path / "out.tar", r"out\.tar: not an archive that can be read \(.*outside")
    assert not (tmp_path / "cache" / "00.png").exists()
    monkeypatch.setattr(captions, "MAX_UNPACKED", 100)
    (tmp_path / "shard-000.tar").touch()
    with tarfile.open(tmp_path / "large.tar", "w") as archive:
        archive.add(tmp_path / "in", "in")
    refused(tmp_path / "large.tar", r"large\.tar: more than")
    assert len(list((tmp_path / "cache" / "unpacked").iterdir())) == 1, "no draft is left"


def refused(root, match, **settings):
    with pytest.raises(ZooError, match=match):
        data(root, **settings)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("not json", "line 3 of FILE is not JSON"),
        ('["a"]', "line 3 of FILE is not a JSON object"),
        ('{"file_name": "00.png"}', r"line 3 of FILE: its fields are file_name\. Add the field text"),
        ('{"text": "a square"}', r"line 3 of FILE: its fields are text\. Add the field file_name"),
        ('{"file_name": "no.png", "text": "a"}', r"line 3 of FILE: no picture no\.png in "),
        ('{"file_name": "../no.png", "text": "a"}', r"line 3 of FILE: no picture \.\./no\.png in "),
        ('{"file_name": "00.png", "text": " "}', r"line 3 of FILE: text=' ' is not a caption"),
        ('{"file_name": "00.png", "text": null}', r"line 3 of FILE: text=None is not a caption"),
        ('{"file_name": "00.png", "text": []}', r"line 3 of FILE: text=\[\] is not a caption"),
        ('{"file_name": 7, "text": "a"}', r"line 3 of FILE: file_name=7 is not a name"),
    ],
)
def test_mistakes_are_named_by_line_and_file(tmp_path, line, match):
    with_metadata(tmp_path)
    file = tmp_path / "metadata.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], line, *lines[2:]]))
    refused(tmp_path, match.replace("FILE", re.escape(str(file))))


def test_pictures_without_captions(tmp_path, caplog):
    with_texts(tmp_path)
    (tmp_path / "05.txt").unlink()
    refused(tmp_path, r"no caption for 1 of 40 images, as 05\.png\. .*05\.txt beside it, or .*data\.on_error=skip")
    found = pairs(data(tmp_path, on_error="skip"))
    assert {i for part in found.values() for i, _ in part} == set(range(40)) - {5}
    assert "no caption for 1 of 40 images, as 05.png; left out" in caplog.text
    assert "not images" not in caplog.text, "captions are not unused files"
    (tmp_path / "06.txt").write_text(" \n")
    refused(tmp_path, r"line 1 of .*06\.txt: no caption", on_error="skip")
    refused(pictures(tmp_path / "bare"), "no caption for 40 of 40 images")


def test_long_captions_are_cut_with_a_warning(tmp_path, caplog):
    with_texts(tmp_path)
    (tmp_path / "05.txt").write_text("red " * 50)
    module = data(tmp_path, max_tokens=8)
    assert module.spec.condition.length == 8
    assert "data.max_tokens=8: 1 caption of 40 cut; the longest has" in caplog.text


@pytest.mark.parametrize("model", ["clip", "captioner", "diffusion", "image_gpt"])
def test_models_of_pictures_and_texts_accept_them(tmp_path, model):
    module = data(with_metadata(tmp_path))
    made = zoo.create_model(model, data=module)
    batch = next(iter(module.train_dataloader()))
    assert made.loss(batch)["loss"].isfinite()
    assert made.spec.condition.length == 3


def test_the_command_line_knows_them(tmp_path):
    config = compose("model=captioner", "data=captioned_images", f"data.path={tmp_path}", "data/tokenizer=bpe")
    assert config.data.path == str(tmp_path)


def test_clip_finds_the_caption_of_new_pictures(tmp_path):
    with_metadata(tmp_path / "in", 80)
    module = data(tmp_path / "in", batch_size=16)
    zoo.fit("clip", module, folder=tmp_path / "run", max_steps=80, progress=False)
    model = zoo.load(tmp_path / "run").eval()
    texts = [f"a {name} square" for name in NAMES]
    x, _ = module.fetch(module.test, torch.arange(len(module.test[0])), torch.Generator(), train=False)
    found = (model.embed_data(x) @ model.embed(texts).T).argmax(1).tolist()
    right = [texts.index(text) for _, text in pairs(module)["test"]]
    assert found == right
    assert len(set(right)) > 1, "control: one answer for all would not do"
