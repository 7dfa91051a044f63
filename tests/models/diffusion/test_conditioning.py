"""Conditions on texts and images: used, dropped, and learned."""

import pytest
import torch
from PIL import Image as PIL

import zoo
from tests.contracts.specs import make
from zoo.cli.main import main
from zoo.core.errors import ConfigError, DataError
from zoo.core.spaces import ABSENT, Image, Tokens
from zoo.data.batch import Batch
from zoo.data.image.captioned_digits import CAPTIONS, LENGTH, NAMES, CaptionedDigits
from zoo.data.image.restoration import Restoration
from zoo.data.text.tokenizers.base import encode_texts, loads
from zoo.models.diffusion.diffusion import Diffusion

ENCODER = {"name": "transformer_encoder", "d_model": 16, "n_layers": 1, "n_heads": 1}
NETWORKS = {
    "mlp": {"name": "mlp", "width": 32, "depth": 1},
    "unet": {"name": "unet", "width": 16},
    "unet_on_patches": {"name": "unet", "width": 16, "patch": 2},
    "dit": {"name": "dit", "d_model": 32, "n_heads": 1, "n_layers": 2},
}
X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LOW = zoo.DataSpec(Image(1, 8, 8, levels=17), Image(1, 4, 4), name="low")


def captions() -> tuple[zoo.DataSpec, torch.Tensor]:
    spec = CaptionedDigits().spec
    return spec, encode_texts(loads(spec.condition.tokenizer), CAPTIONS[:6], LENGTH)


def build(kind: str, network: str, **settings) -> tuple[Diffusion, torch.Tensor]:
    """A model with random weights, and conditions for six samples."""
    spec, y = captions() if kind == "text" else (LOW, torch.nn.functional.avg_pool2d(X, 2))
    torch.manual_seed(0)
    model = Diffusion(spec, denoiser=NETWORKS[network], text_encoder=ENCODER, **settings)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model, y


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", ["text", "image"])
def test_conditions_change_the_estimate_row_by_row(kind: str, network: str) -> None:
    model, y = build(kind, network)
    model.eval()
    with torch.no_grad():
        given = model.estimate(X, 0.5, y)[0]
        other = y.clone()
        other[0] = y[1]
        moved = model.estimate(X, 0.5, other)[0]
        assert not torch.allclose(moved[0], given[0], atol=1e-4)
        torch.testing.assert_close(moved[1:], given[1:])
        dropped = model.dropped(y)
        assert torch.equal(dropped, y), "only in training"
        nothing = model.train().dropped(y)
        model.eval()
        without = model.estimate(X, 0.5, None)[0]
        torch.testing.assert_close(model.estimate(X, 0.5, nothing)[0][:1], without[:1])
        torch.testing.assert_close(model.estimate(X, 0.5, nothing)[0][1:], given[1:])
        assert not torch.allclose(without, given, atol=1e-4)
        guided = model.denoise_fn(y, 3.0)(X, 0.5)[0]
        torch.testing.assert_close(guided, without + 3 * (given - without), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", ["text", "image"])
def test_every_part_of_the_condition_has_a_gradient(kind: str, network: str) -> None:
    model, y = build(kind, network)
    model.train().loss(Batch(X, y))["loss"].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # A softmax over keys does not change with their common shift.
    assert [name for name in without if not name.endswith("key.bias")] == []


def test_padding_and_the_order_of_words() -> None:
    """Padding has no influence; the order of words has."""
    model, y = build("text", "unet")
    model.eval()
    short = y[:1, :1]
    assert (y[0, 1:] == ABSENT).all()
    with torch.no_grad():
        longer = model.estimate(X[:1], 0.5, y[:1])[0]
        torch.testing.assert_close(model.estimate(X[:1], 0.5, short)[0], longer, rtol=1e-4, atol=1e-5)
        full = y[2:3]
        assert (full != ABSENT).all()
        assert not torch.allclose(
            model.estimate(X[:1], 0.5, full)[0], model.estimate(X[:1], 0.5, full.flip(1))[0], atol=1e-4
        )


def test_an_image_as_condition_is_learned() -> None:
    """Points that equal their condition: after a short training, samples follow it, and those without do not."""
    torch.manual_seed(0)
    spec = zoo.DataSpec(Image(1, 2, 2), Image(1, 1, 1), name="flat")
    model = Diffusion(spec, denoiser={"name": "mlp", "width": 64, "depth": 2}, sampler={"name": "heun", "steps": 6})
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(250):
        y = torch.randint(2, (64, 1, 1, 1)) * 0.6 + 0.2
        optimizer.zero_grad()
        model.loss(Batch(y.expand(-1, -1, 2, 2) + 0.02 * torch.randn(64, 1, 2, 2), y))["loss"].backward()
        optimizer.step()
    y = torch.tensor([0.2, 0.8]).repeat_interleave(50).view(-1, 1, 1, 1)
    x = model.sample(100, condition=y, generator=torch.Generator().manual_seed(0))
    assert (x - y).abs().mean() < 0.08
    free = model.sample(100, generator=torch.Generator().manual_seed(0))
    assert (free - y).abs().mean() > 0.2, "negative control"
    assert 0.2 < (free.mean((1, 2, 3)) > 0.5).float().mean() < 0.8


def test_a_text_as_condition_is_learned() -> None:
    """Each caption has one grey level."""
    torch.manual_seed(0)
    spec, _ = captions()
    spec = zoo.DataSpec(Image(1, 2, 2), spec.condition, name="grey levels")
    model = Diffusion(
        spec,
        denoiser={"name": "mlp", "width": 64, "depth": 2},
        text_encoder={**ENCODER, "dropout": 0.0},
        sampler={"name": "heun", "steps": 6},
    )
    tokens, levels = model.text_condition(["a zero", "a nine"]), torch.tensor([0.2, 0.8])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(250):
        k = torch.randint(2, (64,))
        optimizer.zero_grad()
        x = levels[k].view(-1, 1, 1, 1) + 0.02 * torch.randn(64, 1, 2, 2)
        model.loss(Batch(x, tokens[k]))["loss"].backward()
        optimizer.step()
    k = torch.arange(2).repeat_interleave(40)
    x = model.sample(80, condition=tokens[k], generator=torch.Generator().manual_seed(0))
    assert (x.mean((1, 2, 3)) - levels[k]).abs().mean() < 0.1
    swapped = model.sample(80, condition=tokens[1 - k], generator=torch.Generator().manual_seed(0))
    assert (swapped.mean((1, 2, 3)) - levels[k]).abs().mean() > 0.4, "negative control"


def test_what_does_not_fit_is_refused() -> None:
    model, y = build("image", "mlp")
    with pytest.raises(DataError, match="not a batch of"):
        model.sample(6, condition=y[..., :2])
    with pytest.raises(DataError, match="6 for 3 samples"):
        model.sample(3, condition=y)
    with pytest.raises(ConfigError, match="without a condition"):
        model.sample(3, guidance=2.0)
    with pytest.raises(DataError, match="not conditioned on texts"):
        model.text_condition(["three"])
    with pytest.raises(DataError, match="more than 3"):
        build("text", "mlp")[0].text_condition(["a very long caption of a three"])
    off = Diffusion(LOW, denoiser=NETWORKS["mlp"], conditional=False)
    with pytest.raises(DataError, match="unconditional"):
        off.sample(6, condition=y)
    assert off.loss(Batch(X, y))["loss"].isfinite()


def test_captions_name_their_digits() -> None:
    data, digits = CaptionedDigits(), zoo.create_data("digits")
    data.setup()
    digits.setup()
    tokenizer = loads(data.spec.condition.tokenizer)
    assert isinstance(data.spec.condition, Tokens)
    seen = set()
    for (x, tokens), (x_plain, y) in ((data.train, digits.train), (data.val, digits.val), (data.test, digits.test)):
        assert torch.equal(x, x_plain)
        texts = [tokenizer.decode([t for t in row if t >= 0]) for row in tokens.tolist()]
        assert all(text.split()[-1] == NAMES[k] for text, k in zip(texts, y.tolist(), strict=True))
        seen |= set(texts)
    assert seen == set(CAPTIONS)


def test_pairs_of_images_are_degraded_as_said() -> None:
    data = Restoration(source={"name": "digits"}, factor=4, batch_size=5)
    data.setup()
    assert data.spec.condition == Image(1, 2, 2)
    x, y = next(iter(data.train_dataloader()))
    torch.testing.assert_close(y[:, :, 0, 1], x[:, :, :4, 4:].mean((2, 3)))
    with pytest.raises(ConfigError, match="factor=3: does not divide"):
        Restoration(factor=3)
    with pytest.raises(DataError, match="not colour images"):
        Restoration(degrade="color")
    with pytest.raises(DataError, match="not images"):
        Restoration(source="moons")


@pytest.mark.parametrize("name", ["gan", "vae", "iwae", "ae", "pixelcnn", "image_gpt", "pixel_mixture"])
def test_other_models_ignore_texts(name: str) -> None:
    spec, y = captions()
    model = make(name, spec)
    terms = model.loss(Batch(X.mul(16).round() / 16, y))
    assert all(term.isfinite() for term in terms.values())


def test_images_are_described_on_the_command_line(tmp_path, cli) -> None:
    data = CaptionedDigits(batch_size=8)
    model = Diffusion(data.spec, denoiser=NETWORKS["mlp"], text_encoder=ENCODER, sampler={"name": "heun", "steps": 2})
    zoo.fit(model, data, max_steps=2, folder=tmp_path / "run", progress=False, accelerator="cpu")
    done = cli("sample", "run", "--prompt", "a three", "--prompt", "nine", "-n", "3", "--out", "x.png", entry=main)
    assert done.code == 0, done.err
    assert PIL.open("x.png").size == (3 * 52 + 4, 2 * 52 + 4)
    assert "more than 3" in cli("sample", "run", "--prompt", "one two three four", entry=main).err
