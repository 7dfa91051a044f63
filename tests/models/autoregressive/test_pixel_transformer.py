"""Pixels by a causal network: exact densities, units, patches, saving."""

import itertools
import math
from typing import Any

import pytest
import pytorch_lightning as L
import torch

from tests.models.autoregressive.networks import BACKBONES, SMALL, shaken
from zoo.core.errors import ZooError
from zoo.core.spaces import Image, Label, Vector
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.image.digits import Digits
from zoo.models.abilities import SupportsTextGeneration
from zoo.models.ability import supports
from zoo.models.autoregressive.pixel_transformer import PixelTransformer


def pixel_model(shape=(1, 3, 3), levels=2, n_classes=0, conditional=False, **backbone):
    spec = DataSpec(Image(*shape, levels=levels), Label(n_classes) if n_classes else None)
    return shaken(PixelTransformer(spec, conditional=conditional, backbone={**SMALL, **backbone}))


def all_pictures():
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=9))).reshape(512, 1, 3, 3)


def test_density_of_all_pictures_sums_to_one_with_and_without_classes():
    x = all_pictures().double()
    with torch.no_grad():
        log_p = pixel_model().double().log_prob(x)
        assert log_p.std() > 0.5
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)
        model = pixel_model(n_classes=3, conditional=True).double()
        each = torch.stack([model.log_prob(x, torch.full((512,), k)) for k in range(3)])
        assert torch.allclose(each.exp().sum(1), torch.ones(3).double(), atol=1e-6)
        assert not torch.allclose(each[0], each[1])
        assert torch.allclose(model.log_prob(x).exp(), each.exp().mean(0))


def test_pictures_are_drawn_from_the_density():
    model, n = pixel_model(), 20_000
    x = all_pictures()
    with torch.no_grad():
        p = model.log_prob(x).exp()
    drawn = model.sample(n, generator=torch.Generator().manual_seed(0)).flatten(1).long()
    counts = torch.bincount(drawn @ (2 ** torch.arange(8, -1, -1)), minlength=512)
    likely = n * p > 5
    rest, expected = counts[~likely].sum(), n * p[~likely].sum()
    chi2 = ((counts - n * p)[likely].square() / (n * p[likely])).sum() + (rest - expected).square() / expected
    freedom = int(likely.sum())
    assert chi2 < freedom + 3.5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("shape", [(1, 4, 3), (3, 2, 5)])
def test_each_pixel_depends_on_earlier_ones_alone(shape):
    model = pixel_model(shape, levels=4)
    dim = math.prod(shape)
    x = torch.randint(0, 4, (1, *shape)) / 3
    seen = []
    model.net.register_forward_hook(lambda m, i, out: seen.append(out))
    with torch.no_grad():
        model.log_prob(x)
        order = [(c, h, w) for h in range(shape[1]) for w in range(shape[2]) for c in range(shape[0])]
        for place, (c, h, w) in enumerate(order):
            changed = x.clone()
            changed[0, c, h, w] = (changed[0, c, h, w] * 3 + 1) % 4 / 3
            model.log_prob(changed)
            assert torch.equal(seen[0][:, : place + 1], seen[-1][:, : place + 1])  # its own logits included
            if place + 1 < dim:
                assert not torch.equal(seen[0][:, place + 1 :], seen[-1][:, place + 1 :])


def test_pixels_become_tokens_and_come_back():
    model = pixel_model((3, 2, 4), levels=256)
    x = torch.randint(0, 256, (5, 3, 2, 4)) / 255
    tokens = model.tokens(x)
    assert torch.equal(model.images(tokens), x)
    assert tokens[0, :4].tolist() == (x[0, [0, 1, 2, 0], 0, [0, 0, 0, 1]] * 255).round().long().tolist()


def test_units_of_pictures_are_nats_per_image():
    model = PixelTransformer(
        DataSpec(Image(1, 28, 28, levels=2)), backbone={**SMALL, "tie_weights": False}
    )  # a head of zeros: logits are 0
    x = torch.randint(0, 2, (4, 1, 28, 28)).float()
    loss = model.loss(Batch(x, torch.zeros(4, dtype=torch.long)))
    assert loss["loss"].item() == pytest.approx(784 * math.log(2), rel=1e-6)
    assert loss["bits_per_dim"].item() == pytest.approx(1, rel=1e-6)
    assert torch.allclose(model.log_prob(x), torch.full((4,), -784 * math.log(2)))


def test_classes_steer_samples():
    model = pixel_model(n_classes=2, conditional=True)
    with torch.no_grad():
        model.net.head = None
        model.net.embedding.weight[2:] *= 20
    a, b = (model.sample(300, condition=torch.full((300,), k)).mean(0) for k in (0, 1))
    assert (a - b).abs().max() > 0.2


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resume_is_bit_equal(tmp_path, optimizer):
    def fit(steps, stop=None, resume=None):
        torch.manual_seed(0)
        data = Digits(batch_size=8)
        model = PixelTransformer(
            data.spec, optimizer={"name": optimizer, "schedule": "cosine", "warmup": 2}, backbone=SMALL
        )
        model.__class__ = type(
            "Fixed", (PixelTransformer,), {"total_steps": 10, "registered_name": "pixel_transformer"}
        )
        trainer = L.Trainer(
            max_steps=steps,
            limit_val_batches=0,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        trainer.fit(model, data, ckpt_path=resume, weights_only=True if resume else None)
        if stop:
            trainer.save_checkpoint(stop)
        return model

    straight = fit(10)
    fit(5, stop=tmp_path / "five.ckpt")
    resumed = fit(10, resume=tmp_path / "five.ckpt")
    for p, q in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)


def test_sixteen_digits_are_learned_by_heart():
    torch.manual_seed(0)
    data = Digits()
    data.setup()
    x, y = data.train[0][:16], data.train[1][:16]
    model = PixelTransformer(data.spec, backbone={**SMALL, "d_model": 64, "n_heads": 4})
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = model.loss(Batch(x, y))["loss"].item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(Batch(x, y))["loss"]
        loss.backward()
        optimizer.step()
    assert loss < first / 4


@pytest.mark.parametrize(("shape", "levels", "patch"), [((1, 4, 6), 2, (2, 2)), ((3, 4, 4), 3, (1, 2))])
def test_patches_are_a_change_of_alphabet(shape: tuple[int, ...], levels: int, patch: tuple[int, int]) -> None:
    spec = DataSpec(Image(*shape, levels=levels), name="tiny")
    model = PixelTransformer(spec, backbone={**SMALL, "n_layers": 1, "tie_weights": False}, patch=patch)
    x = torch.randint(levels, (7, *shape)) / (levels - 1)
    tokens = model.tokens(x)
    assert tokens.shape == (7, spec.size // (patch[0] * patch[1]))
    assert tokens.max() < model.n_tokens == levels ** (patch[0] * patch[1])
    assert torch.equal(model.images(tokens), x)
    assert model.sample(3).shape == (3, *shape)
    # An untied head starts at zero: all tokens are equally likely, so an image costs as much as uniform pixels.
    torch.testing.assert_close(-model.log_prob(x), torch.full((7,), spec.size * math.log(levels)))


def test_probabilities_of_all_images_sum_to_one_whatever_the_patch() -> None:
    spec = DataSpec(Image(1, 2, 4, levels=2), name="tiny")
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8))).view(-1, 1, 2, 4)
    for patch in ((1, 1), (2, 1), (2, 2), (2, 4)):
        model = PixelTransformer(spec, backbone={**SMALL, "n_layers": 1}, patch=patch)
        shaken(model, 0.5)
        assert float(model.log_prob(every).logsumexp(0)) == pytest.approx(0.0, abs=1e-4), patch


@pytest.mark.parametrize(("levels", "patch"), [(2, (3, 1)), (2, (2, 5)), (17, (2, 4))])
def test_a_patch_that_does_not_fit_is_refused(levels: int, patch: tuple[int, int]) -> None:
    with pytest.raises(ZooError, match="patch"):
        PixelTransformer(DataSpec(Image(1, 8, 8, levels=levels)), backbone=SMALL, patch=patch)


def test_doubling_a_batch_leaves_the_loss():
    model = pixel_model(levels=4)
    x = torch.randint(0, 4, (3, 1, 3, 3)) / 3
    y = torch.zeros(3, dtype=torch.long)
    once, twice = model.loss(Batch(x, y)), model.loss(Batch(x.repeat(2, 1, 1, 1), y.repeat(2)))
    assert torch.allclose(once["loss"], twice["loss"])
    assert torch.allclose(once["loss"], -model.log_prob(x, y).mean())


def test_what_cannot_be_asked_for_is_refused():
    assert not supports(pixel_model(), SupportsTextGeneration)
    with pytest.raises(ZooError, match=r"condition: .* is unconditional"):
        pixel_model().sample(2, condition=torch.tensor([0, 1]))
    with pytest.raises(ZooError, match=r"model.conditional=true: .* has no class labels"):
        pixel_model(conditional=True)
    with pytest.raises(ZooError, match="learns image, codes or audio data"):
        PixelTransformer(DataSpec(Vector(2)))


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda network: network["name"])
@pytest.mark.parametrize(("shape", "n_classes"), [((3, 4, 2), 0), ((1, 3, 3), 4)])
def test_samples_are_shaped_seeded_and_without_dropout(
    backbone: dict[str, Any], shape: tuple[int, ...], n_classes: int
) -> None:
    model = PixelTransformer(
        DataSpec(Image(*shape, levels=5), Label(n_classes) if n_classes else None),
        conditional=n_classes > 0,
        backbone={**backbone, "dropout": 0.9},
    )
    shaken(model).train()
    draws = [model.sample(6, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert draws[0].shape == (6, *shape)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert model.net.training
    assert model.sample(0).shape == (0, *shape)


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda network: network["name"])
def test_every_backbone_has_an_exact_density_over_images(backbone: dict[str, Any]) -> None:
    model = PixelTransformer(DataSpec(Image(1, 3, 3, levels=2)), backbone=backbone)
    shaken(model).double()
    with torch.no_grad():
        log_p = model.log_prob(all_pictures().double())
    assert log_p.std() > 0.1
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-6)
