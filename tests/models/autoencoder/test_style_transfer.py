"""Style transfer: features, the loss by hand, learning, optimisation of pixels, refusals and `zoo edit --style`."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import zoo
from tests.contracts.specs import SPECS, examples, make
from tests.contracts.test_models import train
from zoo.cli.main import main
from zoo.core.spaces import Image, Label, Unpaired
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.nn.losses.style import adain, gram_distance, mean_and_std
from zoo.viz.files import write_samples
from zoo.viz.render import renderer_of

OWN = DataSpec(Image(3, 10, 14), Label(3), name="own")


def test_the_features_are_named() -> None:
    assert make("style_transfer", "image").style_source == "the classifier of digits"
    assert make("style_transfer", OWN).style_source == "random weights"
    assert make("style_transfer", "image", feature_maps="random").style_source == "random weights"


def test_the_loss_by_hand() -> None:
    model, batch = make("style_transfer", "image", style_weight=3.0), examples(SPECS["image"], 6)
    content, style = batch.x, batch.x.roll(1, 0)
    wanted = adain(model.features(content)[-1], model.features(style)[-1])
    found, target = model.features(model.decoder(wanted)), model.features(style)
    total = (found[-1] - wanted).square().mean()
    for a, b in zip(found, target, strict=True):
        for one, two in zip(mean_and_std(a), mean_and_std(b), strict=True):
            total = total + 3 * (one - two).square().mean()
    torch.testing.assert_close(model.loss(batch)["loss"], total)
    assert len(found) == 2, "8x8 and 4x4"
    for n_levels, sides in ((1, [10]), (2, [10, 5]), (9, [10, 5, 3])):
        other = make("style_transfer", OWN, n_levels=n_levels)
        assert [part.shape[2] for part in other.features(torch.rand(1, 3, 10, 14))] == sides
        assert other.stylize(*torch.rand(2, 3, 3, 10, 14)).shape == (3, 3, 10, 14)
    assert not any(p.requires_grad for p in model.features.parameters())


def test_contents_and_styles_of_two_domains() -> None:
    model = make("style_transfer", DataSpec(Image(3, 8, 8), Unpaired(Image(1, 6, 7)), name="domains"))
    batch = Batch(torch.rand(4, 3, 8, 8), torch.rand(4, 1, 6, 7))
    content, style = model.content_and_style(batch)
    assert torch.equal(style, batch.x)
    assert content.shape == batch.x.shape
    assert torch.equal(content[:, 0], content[:, 2])
    torch.testing.assert_close(content[:, :1], F.interpolate(batch.y, (8, 8), mode="nearest-exact"))


def test_training_brings_the_style_nearer_and_keeps_the_content() -> None:
    torch.manual_seed(0)
    model = make("style_transfer", "image")
    batch, results = examples(SPECS["image"], 16), []
    for steps in (0, 150):
        if steps:
            train(model, steps)
        results.append({k: float(v.detach()) for k, v in model.loss(batch).items()})
    assert results[1]["style"] < 0.3 * results[0]["style"]
    assert results[1]["content"] < 0.5 * results[0]["content"]
    x, style = batch.x, batch.x.roll(3, 0)
    half, whole = (model.stylize(x, style, strength=s) for s in (0.0, 1.0))
    torch.testing.assert_close(half, model.stylize(x, x, strength=1.0), msg="strength 0 is one's own style")
    assert not torch.allclose(half, whole, atol=0.01)


def test_optimised_pixels_have_the_gram_matrices_of_the_style() -> None:
    torch.manual_seed(0)
    model, x = make("style_transfer", "image"), examples(SPECS["image"], 4).x
    style = x.roll(1, 0)
    target = model.features(style)
    before = gram_distance(model.features(x), target)
    found = model.stylize(x, style, method="gatys", steps=60, gram_weight=1e4)
    assert gram_distance(model.features(found), target) < 0.3 * before
    torch.testing.assert_close(model.stylize(x, style, method="gatys", gram_weight=0.0), x, msg="no style, no change")
    alone = model.stylize(x[:1], style[:1], method="gatys", steps=60, gram_weight=1e4)
    assert gram_distance(model.features(alone), [part[:1] for part in target]) < 0.5 * before
    assert 0 <= found.min() <= found.max() <= 1


def test_images_of_another_shape_are_refused() -> None:
    model, x = make("style_transfer", "image"), torch.rand(3, 1, 8, 8)
    for given in ((x, x[:2]), (x, x[..., 1:]), (x[:, :, 1:], x)):
        with pytest.raises(zoo.ZooError, match="not 3 of image 1x8x8"):
            model.stylize(*given)


@pytest.mark.parametrize("words", [(), ("strength=0.5",), ("method=gatys", "steps=3")])
def test_zoo_edit_writes_content_style_and_result(words: tuple[str, ...], tmp_path: Path, cli) -> None:
    x = torch.rand(24, 1, 8, 8)
    zoo.fit("style_transfer", x, max_steps=2, folder=tmp_path / "run", progress=False, accelerator="cpu")
    write_samples(x[:2], tmp_path / "in", renderer_of(Image(1, 8, 8)))
    one, two = sorted(map(str, (tmp_path / "in").iterdir()))
    done = cli("edit", str(tmp_path / "run"), "--image", one, "--style", two, *words, "--out", "out.npy", entry=main)
    assert done.code == 0, done.err
    assert "style in the features of random weights" in done.err
    done = cli("edit", str(tmp_path / "run"), "--image", one, "--style", two, "--colorize", entry=main)
    assert "two changes at once" in done.err
    done = cli("sample", str(tmp_path / "run"), entry=main)
    assert "--style FILE" in done.err
