"""Style transfer: features, the loss by hand, learning, optimisation of pixels, refusals and `zoo edit --style`."""

import re
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
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.style import StyleSuite
from zoo.nn.losses.style import adain, gram_distance, mean_and_std, statistics_distance
from zoo.nn.networks.vgg import MEAN, STD
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


@pytest.mark.parametrize("features", ["classifier", "random"])
def test_the_metrics_name_their_features_and_equal_the_loss(features: str) -> None:
    """Of one batch: the mean over images is the term of the loss, and images are compared with their own style."""
    model = make("style_transfer", "image", feature_maps=features)
    data = zoo.create_data("digits")
    data.setup()
    data.test = tuple(part[:40] for part in data.test)
    scores = StyleSuite().measure(EvaluationContext(model, data, EvaluationConfig()))
    name = {"classifier": "classifier_of_digits", "random": "random_weights"}[features]
    assert list(scores) == [f"style_distance_{name}@40_test", f"content_distance_{name}@40_test"]
    (batch,) = EvaluationContext(model, data, EvaluationConfig()).batches()
    content, style = model.content_and_style(batch)
    made = model.stylize(content, style)
    wanted = float(statistics_distance(model.features(made), model.features(style)))
    assert scores[f"style_distance_{name}@40_test"].value == pytest.approx(wanted, rel=1e-4)
    assert scores[f"content_distance_{name}@40_test"].note == "0 of the content itself"
    exact = model.style_distances(style, content, style)["style"]
    torch.testing.assert_close(exact, torch.zeros(40))
    maps, kept = model.features(made)[-1], model.features(content)[-1]
    by_hand = F.mse_loss(F.instance_norm(maps, eps=1e-10), F.instance_norm(kept, eps=1e-10))
    assert scores[f"content_distance_{name}@40_test"].value == pytest.approx(float(by_hand), rel=1e-3)
    assert by_hand > 0.01


# -- features of VGG, from a local file --

PLAN = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4), "vgg11": (1, 1, 2, 2, 2)}


def vgg_file(path: Path, name: str = "vgg19", width: int = 4, legacy: bool = False) -> torch.nn.Sequential:
    """Write a narrow network with the keys of torchvision's, as built there; return its convolutional part."""
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    n_in = 3
    for level, count in enumerate(PLAN[name]):
        for _ in range(count):
            n = width * 2 ** min(level, 3)
            layers += [torch.nn.Conv2d(n_in, n, 3, padding=1), torch.nn.ReLU()]
            n_in = n
        layers.append(torch.nn.MaxPool2d(2, 2))
    features = torch.nn.Sequential(*layers)
    state = {f"features.{k}": v for k, v in features.state_dict().items()}
    state["classifier.0.weight"] = torch.randn(2, 2)
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    return features


@pytest.mark.parametrize(
    ("name", "ends", "legacy"), [("vgg16", (2, 7, 12), True), ("vgg19", (2, 7, 12), False), ("vgg11", (2, 5, 8), False)]
)
def test_vgg_has_the_maps_of_torchvision_of_standardised_images(
    tmp_path: Path, name: str, ends: tuple[int, ...], legacy: bool
) -> None:
    """Inside, where borders have no effect: relu1_1, relu2_1 and relu3_1 of the network that wrote the file."""
    reference = vgg_file(tmp_path / "weights.pth", name, legacy=legacy)
    settings = {"name": "vgg", "weights": str(tmp_path / "weights.pth")}
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    for channels in (3, 1):
        spec = DataSpec(Image(channels, 64, 64), name="pictures")
        model = make("style_transfer", spec, feature_maps=settings, n_levels=3)
        x = torch.rand(2, channels, 64, 64)
        with torch.no_grad():
            found = model.features(x)
            assert len(found) == 3
            for maps, end, margin in zip(found, ends, (1, 3, 6), strict=True):
                wanted = reference[:end]((x - mean) / std)  # a grey image becomes three equal channels
                assert maps.shape == wanted.shape
                inner = (..., slice(margin, -margin), slice(margin, -margin))
                torch.testing.assert_close(maps[inner], wanted[inner], rtol=1e-4, atol=1e-5)
                raw = reference[:end](x.expand(-1, 3, -1, -1))
                assert not torch.allclose(maps[inner], raw[inner], atol=1e-3), "negative control"
    assert re.fullmatch(rf"{name}-[0-9a-f]{{8}}", model.style_source)
    assert not any(p.requires_grad for p in model.features.parameters())


def test_training_with_vgg_and_loading(tmp_path: Path) -> None:
    vgg_file(tmp_path / "weights.pth")
    settings = {"name": "vgg", "weights": str(tmp_path / "weights.pth")}
    odd = DataSpec(Image(3, 10, 14), name="odd")
    model = make("style_transfer", odd, feature_maps=settings, n_levels=9)
    x = torch.rand(4, 3, 10, 14)
    assert [part.shape[2] for part in model.features(x)] == [10, 5, 3], "sizes round up, as those of the decoder"
    before = [p.clone() for p in model.features.parameters()]
    loss = model.loss(Batch(x, torch.zeros(4, dtype=torch.long)))["loss"]
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.decoder.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.features.parameters(), strict=True))
    for method in ("adain", "gatys"):
        assert model.stylize(x, x.roll(1, 0), method=method, steps=2).shape == x.shape
    with torch.device("meta"):
        other = make("style_transfer", odd, feature_maps=settings, n_levels=9)
    assert {k: v.shape for k, v in other.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_files_that_are_not_vgg_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"

    def refused(spec: DataSpec = OWN) -> str:
        with pytest.raises(zoo.ZooError) as caught:
            make("style_transfer", spec, feature_maps={"name": "vgg", "weights": str(path)})
        return str(caught.value)

    assert "there is no such file" in refused()
    path.write_bytes(b"not a file of torch")
    assert "cannot be read" in refused()
    torch.save({"features.0.weight": torch.randn(4, 3, 3, 3), "features.1.weight": torch.randn(4)}, path)
    assert "not weights of VGG without normalisation" in refused()
    torch.save(torch.nn.ReLU(), path)  # a module, which would need code
    assert "cannot be read" in refused()
    vgg_file(path)
    assert "2 channels" in refused(DataSpec(Image(2, 8, 8), name="two"))
    with pytest.raises(zoo.ZooError, match="VGG needs a file of weights"):
        make("style_transfer", OWN, feature_maps="vgg")
