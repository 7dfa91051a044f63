"""pix2pix and CycleGAN: losses by hand, players apart, inverse maps, networks and refused data."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zoo
from tests.contracts.specs import SPECS, examples, make
from tests.contracts.test_models import train
from zoo.core.errors import DataError
from zoo.core.registry import build
from zoo.core.spaces import Image, Unpaired
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.adversarial.cyclegan import CycleGAN
from zoo.models.adversarial.pix2pix import Pix2Pix

SPEC = SPECS["pictures"]
DOMAINS = DataSpec(Image(3, 8, 8), Unpaired(Image(3, 8, 8)), name="domains")


class Shift(nn.Module):
    """Adds a constant to images: its inverse subtracts it."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.by


def shifted(forth: float, back: float, **settings: object) -> CycleGAN:
    model = make("cyclegan", DOMAINS, **settings)
    model.generators["target"], model.generators["source"] = Shift(forth), Shift(back)
    return model.eval()


def pair() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(*(torch.rand(6, 3, 8, 8, generator=generator) for _ in range(2)))


def test_the_terms_of_pix2pix_by_hand() -> None:
    model = make("pix2pix", SPEC, l1_weight=7.0).eval()
    batch = examples(SPEC, 5)
    x, y = 2 * batch.x - 1, 2 * batch.y - 1
    fake = model.generators["target"](y)
    real_logits, fake_logits = (model.discriminators["pair"](torch.cat([y, part], 1)) for part in (x, fake))
    terms = model.loss(batch)
    torch.testing.assert_close(terms["loss_g"], -F.logsigmoid(fake_logits).mean() + 7 * (fake - x).abs().mean())
    cross_entropy = F.binary_cross_entropy_with_logits
    wanted = cross_entropy(real_logits, torch.ones_like(real_logits))
    wanted = wanted + cross_entropy(fake_logits, torch.zeros_like(fake_logits))
    torch.testing.assert_close(terms["loss_d"], wanted)
    alone = model.discriminators["pair"](torch.cat([y.roll(1, 0), x], 1))
    assert not torch.allclose(alone, real_logits, atol=1e-4), "the discriminator sees the source"


def test_a_perfect_translation_has_no_error_and_a_wrong_one_its_own() -> None:
    spec = DataSpec(Image(3, 8, 8), Image(3, 8, 8))
    model = make("pix2pix", spec)
    model.generators["target"] = Shift(0.0)
    x = pair().x
    assert model.generator_terms(Batch(x, x))[0]["l1"] == 0
    model.generators["target"] = Shift(0.25)
    torch.testing.assert_close(model.generator_terms(Batch(x, x))[0]["l1"], torch.tensor(0.25))


def test_inverse_maps_have_no_cycle_error() -> None:
    """Negative control: maps that are not inverse have twice the size of their product."""
    batch = pair()
    inverse = shifted(0.3, -0.3).generator_terms(batch)[0]
    assert inverse["cycle"] < 1e-6
    torch.testing.assert_close(inverse["identity"], torch.tensor(0.6))
    torch.testing.assert_close(shifted(0.3, -0.1).generator_terms(batch)[0]["cycle"], torch.tensor(0.4))
    assert shifted(0.0, 0.0).generator_terms(batch)[0]["identity"] == 0


def test_the_terms_of_cyclegan_by_hand() -> None:
    model = make("cyclegan", DOMAINS, cycle_weight=3.0, identity_weight=2.0).eval()
    batch = pair()
    b, a = 2 * batch.x - 1, 2 * batch.y - 1
    to_b, to_a = model.generators["target"], model.generators["source"]
    d_b, d_a = model.discriminators["target"], model.discriminators["source"]
    adversarial = ((d_b(to_b(a)) - 1) ** 2).mean() / 2 + ((d_a(to_a(b)) - 1) ** 2).mean() / 2
    cycle = (to_a(to_b(a)) - a).abs().mean() + (to_b(to_a(b)) - b).abs().mean()
    identity = (to_b(b) - b).abs().mean() + (to_a(a) - a).abs().mean()
    terms = model.loss(batch)
    torch.testing.assert_close(terms["loss_g"], adversarial + 3 * cycle + 2 * identity)
    wanted = sum(((d(real) - 1) ** 2).mean() / 2 + (d(fake) ** 2).mean() / 2
                 for d, real, fake in ((d_b, b, to_b(a)), (d_a, a, to_a(b))))  # fmt: skip
    torch.testing.assert_close(terms["loss_d"], wanted)
    other = Batch(batch.x, batch.y.roll(1, 0))
    torch.testing.assert_close(model.loss(other)["loss_g"], terms["loss_g"], msg="pairs have no influence")


def test_domains_of_other_channels_have_no_identity_term() -> None:
    spec = DataSpec(Image(3, 8, 8), Unpaired(Image(1, 12, 10)), name="domains")
    model = make("cyclegan", spec)
    batch = Batch(torch.rand(4, 3, 8, 8), torch.rand(4, 1, 12, 10))
    assert "identity" not in model.loss(batch)
    assert model.translate(batch.y).shape == (4, 3, 8, 8)
    assert model.translate(batch.x, reverse=True).shape == (4, 1, 12, 10)
    assert model.source_space(reverse=True) == spec.x
    with pytest.raises(DataError, match="not a batch of image 1x12x10"):
        model.translate(batch.x)


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_the_discriminator_does_not_train_the_generator(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a discriminator's loss it stays; and its loss gives the generators no gradient."""
    model = make(name, SPEC)
    _, fakes = model.generator_terms(examples(SPEC, 4))
    model.zero_grad()
    model.discriminator_terms(examples(SPEC, 4), fakes)["loss_d"].backward()
    assert all(p.grad is None for p in model.generators.parameters())
    frozen = {k: v.clone() for k, v in model.discriminators.state_dict().items()}
    moving = {k: v.clone() for k, v in model.generators.state_dict().items()}
    monkeypatch.setattr(
        type(model),
        "discriminator_terms",
        lambda self, batch, fakes: {"loss_d": 0 * sum(p.sum() for p in self.discriminators.parameters())},
    )
    train_pictures(model, 2)
    assert all(torch.equal(v, frozen[k]) for k, v in model.discriminators.state_dict().items())
    assert any(not torch.equal(v, moving[k]) for k, v in model.generators.state_dict().items())


def train_pictures(model: zoo.Model, batches: int) -> None:
    model.optimizer_config.weight_decay = 0.0
    train(model, batches)


def test_pix2pix_learns_from_pairs_and_not_from_shuffled_ones() -> None:
    """Targets are the source in other levels; shuffled pairs are the negative control."""
    errors = []
    for shuffled in (False, True):
        torch.manual_seed(0)
        spec = DataSpec(Image(1, 8, 8), Image(1, 8, 8))
        model = Pix2Pix(
            spec, translator={"name": "unet", "width": 8}, patch_discriminator={"name": "patchgan", "width": 8}
        )
        judge = torch.optim.Adam(model.discriminators.parameters(), 1e-3)
        optimizer = torch.optim.Adam(model.generators.parameters(), 5e-3)
        for _ in range(80):
            y = torch.rand(16, 1, 1, 1).expand(-1, -1, 8, 8) * torch.rand(1, 1, 8, 8)
            batch = Batch(1 - 0.8 * (y.roll(1, 0) if shuffled else y), y)
            terms, fakes = model.generator_terms(batch)
            optimizer.zero_grad()
            terms["loss_g"].backward()
            optimizer.step()
            judge.zero_grad()
            model.discriminator_terms(batch, fakes)["loss_d"].backward()
            judge.step()
        y = torch.linspace(0.1, 0.9, 20).view(-1, 1, 1, 1).expand(-1, -1, 8, 8) * torch.rand(1, 1, 8, 8)
        errors.append(float((model.translate(y) - (1 - 0.8 * y)).abs().mean()))
    assert errors[0] < 0.05
    assert errors[1] > 2 * errors[0], errors


@pytest.mark.parametrize("name", ["unet", "resnet"])
@pytest.mark.parametrize("size", [(8, 8), (9, 14), (4, 4), (3, 5), (32, 32)])
def test_networks_of_any_size(name: str, size: tuple[int, int]) -> None:
    network = build("translator", {"name": name, "width": 8}, 2, (3, *size))
    x = torch.rand(2, 2, *size, requires_grad=True)
    found = network(x)
    assert found.shape == (2, 3, *size)
    found.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_the_unet_connects_stages_of_equal_size() -> None:
    """With all maps below full resolution cut, an output pixel still follows the input pixels near it."""
    network = build("translator", {"name": "unet", "width": 8, "norm": "none"}, 1, (1, 16, 16))
    x = torch.rand(1, 1, 16, 16, requires_grad=True)
    for layer in network.down:
        layer.register_forward_hook(lambda module, given, result: 0 * result)
    network(x)[0, 0, 8, 8].backward()
    near = x.grad[0, 0] != 0
    assert near[7:10, 7:10].all()
    assert not near[:4].any()


@pytest.mark.parametrize(
    ("model", "spec", "message"),
    [
        (Pix2Pix, SPECS["image"], "is given .*label"),
        (Pix2Pix, DataSpec(Image(1, 8, 8)), "is given nothing"),
        (Pix2Pix, DOMAINS, "of another domain.*model=cyclegan"),
        (CycleGAN, SPECS["image"], "data=two_domains"),
        (CycleGAN, DataSpec(Image(1, 8, 8), Unpaired(SPECS["vector"].x)), "the other domain is vector"),
    ],
)
def test_data_that_do_not_fit_are_refused(model: type[zoo.Model], spec: DataSpec, message: str) -> None:
    with pytest.raises(DataError, match=message):
        model(spec)


def test_other_models_of_images_do_not_use_the_other_domain() -> None:
    """A model of images given images is not conditioned on images that are independent of its data."""
    model = make("diffusion", DOMAINS)
    assert model.given is None
    assert "translate" not in model.abilities
    assert model.loss(pair())["loss"].isfinite()
    assert "translate" in make("diffusion", SPEC).abilities
