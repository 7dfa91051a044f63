"""Consistency and unrolled steps inside a GAN: by hand, for every game, and without a trace in the discriminator."""

import pytest
import torch

import zoo
from tests.contracts.specs import SPECS, examples, make
from tests.contracts.test_models import train
from zoo.models.adversarial.gan import GAN
from zoo.models.adversarial.unrolled import look_ahead
from zoo.nn.losses.gan import GAN_LOSSES, LossName

SMALL = {"name": "mlp", "width": 8, "depth": 1}


class Mirror(torch.nn.Module):
    """Left to right, so that a test can do the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(3)


@pytest.mark.parametrize("name", ["gan", "r3gan", "sngan", "acgan"])
def test_consistency_by_hand(name: str) -> None:
    model = make(name, "image", consistency_weight=2.0, consistency_fake_weight=3.0).eval()
    model.change = Mirror()
    batch, z = examples(SPECS["image"], 8), torch.randn(8, model.latent_dim)
    model.latents = lambda n: z
    terms = model.discriminator_terms(batch)
    real, fake = model.to_model_range(batch.x), model.generator(z, batch.y)
    for key, weight, x in (("consistency", 2.0, real), ("consistency_fake", 3.0, fake)):
        logits = [model.discriminator(part, batch.y) for part in (x, x.flip(3))]
        torch.testing.assert_close(terms[key], weight * (logits[0] - logits[1]).square().mean().detach())
    without = make(name, "image").eval()
    without.load_state_dict(model.state_dict())
    without.latents = model.latents
    plain = without.discriminator_terms(batch)
    torch.testing.assert_close(terms["loss_d"] - terms["consistency"] - terms["consistency_fake"], plain["loss_d"])
    terms["loss_d"].backward()
    assert all(p.grad is None for p in model.generator.parameters())


def test_training_makes_logits_consistent() -> None:
    """The change of logits by a mirror is smaller with the term than without it."""
    found = []
    for weight in (0.0, 30.0):
        model = make("gan", "image", consistency_weight=weight)
        model.change = Mirror()
        train(model, 40)
        batch = examples(SPECS["image"], 16)
        real = model.to_model_range(batch.x)
        logits = [model.discriminator(part, batch.y).detach() for part in (real, real.flip(3))]
        found.append(float((logits[0] - logits[1]).square().mean() / logits[0].var()))
    assert found[1] < 0.5 * found[0]


def test_a_change_that_does_not_fit_the_data_is_refused() -> None:
    with pytest.raises(zoo.ZooError, match="changes images"):
        make("gan", "vector", consistency_weight=1.0)
    assert "change" not in dict(make("gan", "vector").named_children())


@pytest.mark.parametrize("loss", GAN_LOSSES)
def test_no_steps_ahead_is_the_game_itself(loss: LossName) -> None:
    """With a learning rate near zero; with a large one the loss differs (negative control)."""
    model, batch = make("gan", "image", loss=loss).eval(), examples(SPECS["image"], 8)
    z = torch.randn(8, model.latent_dim)
    model.latents = lambda n: z
    plain = model.generator_terms(batch)["loss_g"]
    for lr, close in ((1e-9, True), (0.5, False)):
        model.hparams.update(unroll_steps=2, unroll_lr=lr)
        ahead = model.generator_terms(batch)["loss_g"]
        assert torch.allclose(ahead, plain, rtol=1e-5, atol=1e-6) == close
        gradients = torch.autograd.grad(ahead, [*model.generator.parameters()])
        assert all(g.isfinite().all() for g in gradients)


def test_steps_ahead_are_those_of_gradient_descent() -> None:
    """The same logits as a copy of the discriminator that torch's own optimizer trained; and it stays as it is."""
    import copy

    model, batch = make("sngan", "image", discriminator=SMALL | {"spectral_norm": True}), examples(SPECS["image"], 8)
    model.discriminator.eval()  # power iterations would differ between the copies
    real = model.to_model_range(batch.x)
    fake = model.generator(torch.randn(8, model.latent_dim), batch.y)
    before = copy.deepcopy(model.discriminator.state_dict())
    found = look_ahead(model.discriminator, model.game, real, fake, batch.y, steps=3, lr=0.1)
    trained = copy.deepcopy(model.discriminator)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model.game.discriminator(trained(real, batch.y), trained(fake.detach(), batch.y)).backward()
        optimizer.step()
    for logits, x in zip(found[:2], (real, fake), strict=True):
        torch.testing.assert_close(logits, trained(x, batch.y), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in model.discriminator.state_dict().items())


@pytest.mark.parametrize(
    "settings",
    [
        {"unroll_steps": 2},
        {"unroll_steps": 1, "auxiliary": "classifier", "conditional": True, "loss": "relativistic"},
        {"unroll_steps": 1, "discriminator": SMALL | {"spectral_norm": True}},
        {"consistency_weight": 10.0, "consistency_fake_weight": 5.0, "augmentation": "ada", "top_k": 0.5},
        {"orthogonal_weight": 0.1, "path_length_weight": 1.0, "path_length_interval": 1, "r1_gamma": 0.1, "clip": 1.0},
    ],
    ids=str,
)
def test_terms_combine(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = GAN(SPECS["image"], **({"latent_dim": 8, "generator": SMALL, "discriminator": SMALL} | settings))
    train(model, 3, log_every_n_steps=1)
    assert all(p.isfinite().all() for p in model.parameters())
    tags = {tag for chart in model.charts().values() for tag in chart if tag.startswith("train/")}
    assert {tag.removeprefix("train/") for tag in tags} <= set(model.last_logged)
