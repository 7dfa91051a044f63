"""VQGAN: the adaptive weight, the players and their gradients, the distance in a classifier's features."""

import pytest
import torch
from torch.nn import functional as F

from tests.contracts.specs import SPECS, examples, make
from tests.contracts.test_models import train
from zoo.core.registry import build
from zoo.evaluation.features.base import shipped_for
from zoo.evaluation.features.classifier import read
from zoo.models.autoencoder.vqgan import adaptive_weight


def test_the_weight_makes_both_gradients_equally_long() -> None:
    torch.manual_seed(0)
    layer = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(8, 5, dtype=torch.float64)
    loss, adversarial = 300 * (x @ layer).square().mean(), (x @ layer).tanh().sum()
    weight = adaptive_weight(loss, adversarial, layer)
    assert not weight.requires_grad
    one, two = (torch.autograd.grad(term, layer, retain_graph=True)[0].norm() for term in (loss, weight * adversarial))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=0)
    assert not torch.allclose(one, torch.autograd.grad(adversarial, layer)[0].norm(), rtol=0.1)
    with torch.no_grad():
        assert adaptive_weight(loss, adversarial, layer) == 1


def test_terms_add_up_and_players_are_apart() -> None:
    model = make("vqgan", "image", adversarial_weight=0.7, perceptual_weight=2.0)
    batch = examples(model.spec, 8)
    terms, found = model.generator_terms(batch)
    total = terms["reconstruction"] + terms["quantization"] + 2 * 64 * terms["perceptual"]
    torch.testing.assert_close(terms["loss_g"], total + terms["weight"] * terms["adversarial"])
    assert terms["perceptual"] > 0
    torch.testing.assert_close(terms["adversarial"], -model.discriminator(found).mean())
    model.zero_grad()
    judge = model.discriminator_terms(batch, found)["loss_d"]
    hinge = F.relu(1 - model.discriminator(batch.x)).mean() + F.relu(1 + model.discriminator(found)).mean()
    torch.testing.assert_close(judge, hinge)
    judge.backward()
    assert all(p.grad is None for p in model.network.parameters()), "the discriminator does not train the autoencoder"
    waiting = make("vqgan", "image", adversarial_start=10)
    assert waiting.generator_terms(batch)[0]["weight"] == 0


def test_a_training_step_moves_the_players_by_their_own_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a discriminator's loss, the discriminator stays, whatever the adversarial term is."""
    model = make("vqgan", "image")
    frozen = {k: v.clone() for k, v in model.discriminator.state_dict().items()}
    monkeypatch.setattr(
        type(model), "discriminator_terms", lambda self, batch, found: {"loss_d": 0 * self.discriminator(found).sum()}
    )
    model.optimizer_config.weight_decay = 0.0
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    train(model, 2)
    assert all(torch.equal(v, frozen[k]) for k, v in model.discriminator.state_dict().items())
    assert any(not torch.equal(v, before[k]) for k, v in model.network.state_dict().items())


def test_the_distance_in_features() -> None:
    """Zero for equal images, by hand for the first layer, and larger for another digit than for a shift in grey."""
    spec = SPECS["image"]
    distance = build("perceptual", "classifier", spec)
    x = examples(spec, 40).x
    assert distance.available
    assert distance(x, x).abs().max() < 1e-6
    body = read(shipped_for(spec))[0].encoder.body
    maps = [F.normalize(body[:2](part), dim=1, eps=1e-8) for part in (x, x.flip(0))]
    by_hand = (maps[0] - maps[1]).square().sum(1).mean((1, 2))
    distance.layers = distance.layers[:2]
    torch.testing.assert_close(distance(x, x.flip(0)), by_hand)
    whole = build("perceptual", "classifier", spec)
    noise = 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert whole(x, x + noise).mean() < 0.5 * whole(x, x.flip(0)).mean()
    assert not [p for p in whole.parameters() if p.requires_grad]
    assert not whole.train().training


def test_data_without_a_classifier_have_no_perceptual_term() -> None:
    spec = SPECS["wide"]
    assert not build("perceptual", "classifier", spec).available
    model = make("vqgan", "wide")
    assert "perceptual" not in model.loss(examples(spec, 4))
    assert "perceptual" in make("vqgan", "image").loss(examples(SPECS["image"], 4))
    off = make("vqgan", "image", perceptual_weight=0.0)
    assert "perceptual" not in off.loss(examples(SPECS["image"], 4))
    assert off.perceptual is None
