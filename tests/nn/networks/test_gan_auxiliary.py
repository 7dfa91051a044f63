"""ACGAN and InfoGAN: terms by hand, codes of the right distribution, a bound that is reached, and players apart."""

import math

import pytest
import torch
from torch.nn import functional as F

import zoo
from tests.contracts.specs import SPECS, examples, make
from zoo.core.errors import ConfigError
from zoo.nn.networks.gan_auxiliary import AuxiliaryClassifier, LatentCodes
from zoo.nn.networks.gan_heads import frozen_params


def test_codes_have_their_distributions() -> None:
    """A uniform category, uniform numbers, and noise that stays: within 5 standard errors."""
    torch.manual_seed(0)
    n, codes = 40_000, LatentCodes(9, 4, 0, n_categories=4, n_continuous=2)
    z = torch.randn(n, 9)
    found = codes.code(z)
    category, continuous = found[:, :4], found[:, 4:6]
    assert set(category.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(category.sum(1), torch.ones(n))
    assert ((category.mean(0) - 0.25).abs() < 5 * math.sqrt(0.25 * 0.75 / n)).all()
    for power, moment, variance in ((1, 0.0, 1 / 3), (2, 1 / 3, 1 / 5 - 1 / 9)):  # of a uniform law on [-1, 1]
        assert ((continuous.pow(power).mean(0) - moment).abs() < 5 * math.sqrt(variance / n)).all()
    assert torch.equal(found[:, 6:], z[:, 6:])
    assert not ((z[:, 4:6].square().mean(0) - 1 / 3).abs() < 0.1).any(), "negative control: noise is not uniform"


def test_the_bound_is_reached_only_where_samples_show_the_codes() -> None:
    """A head learns codes that are in the features. Of features without codes it keeps their entropy, ln 4."""
    losses = []
    for shown in (True, False):
        torch.manual_seed(0)
        codes = LatentCodes(6, 5, 0, n_categories=4, n_continuous=1)
        optimizer = torch.optim.Adam(codes.parameters(), 0.05)
        for _ in range(300):
            z = torch.randn(256, 6)
            features = codes.code(z if shown else torch.randn(256, 6))[:, :5] * 20
            loss = codes.generator_terms(features, torch.zeros(256), z)["information"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] < 0.02
    entropy = math.log(4) + 0.5 / 3  # and half the variance of a uniform law
    assert losses[1] == pytest.approx(entropy, abs=0.15)


def test_the_terms_of_the_codes_by_hand() -> None:
    codes = LatentCodes(5, 3, 0, n_categories=3, n_continuous=1, weight=0.7)
    z, features = torch.randn(6, 5), torch.randn(6, 3)
    found, wanted = codes.head(features), codes.code(z)
    log_q = F.log_softmax(found[:, :3], 1).gather(1, z[:, :3].argmax(1, keepdim=True))[:, 0]
    log_q = log_q + torch.distributions.Normal(found[:, 3], 1.0).log_prob(wanted[:, 3]) + 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(codes.generator_terms(features, z[:, 0], z)["information"], -0.7 * log_q.mean())


def test_the_terms_of_an_auxiliary_classifier_by_hand() -> None:
    head = AuxiliaryClassifier(4, 5, 3, weight=2.0)
    real, fake, y = torch.randn(7, 5), torch.randn(7, 5), torch.arange(7) % 3
    nll = [-head.head(part).log_softmax(1)[torch.arange(7), y].mean() for part in (real, fake)]
    torch.testing.assert_close(head.discriminator_terms(real, fake, y)["classes"], 2 * (nll[0] + nll[1]))
    torch.testing.assert_close(head.generator_terms(fake, y, real)["classes"], 2 * nll[1])
    other = head.generator_terms(fake, (y + 1) % 3, real)["classes"]
    assert not torch.allclose(other, 2 * nll[1]), "negative control: other labels"


@pytest.mark.parametrize("name", ["acgan", "infogan"])
def test_each_player_learns_its_own_part(name: str) -> None:
    """The classifier is the discriminator's, the head of the codes the generator's; terms are a part of the losses."""
    model = make(name, "image", ema_halflife_images=0.0)
    batch = examples(model.spec, 8)
    further = model.auxiliary
    owner, other = (model.discriminator, model.generator) if name == "acgan" else (model.generator, model.discriminator)
    assert any(p is further.head.weight for p in owner.parameters())
    assert not any(p is further.head.weight for p in other.parameters())
    with frozen_params(model.discriminator):
        model.generator_terms(batch)["loss_g"].backward()
    assert (further.head.weight.grad is None) == (name == "acgan")
    plain = make("cgan" if name == "acgan" else "gan", "image")
    term = f"{further.terms[0]}_g"
    assert term in model.generator_terms(batch)
    assert term not in plain.generator_terms(batch)
    torch.manual_seed(1)
    whole = model.generator_terms(batch)
    torch.manual_seed(1)
    z = model.latents(len(batch.x))
    fake = model.augment(model.generator(z, batch.y))
    game = model.game.generator(torch.zeros(()), model.discriminator(fake, batch.y))
    torch.testing.assert_close(whole["loss_g"], game + whole[term])


def test_a_category_is_chosen_by_its_noise() -> None:
    model = make("infogan", "image").eval()
    z, y = torch.randn(4, model.latent_dim), torch.zeros(4, dtype=torch.long)
    z[:, 3] = 10
    same = z.clone()
    same[:, :3] = 0
    assert torch.equal(model.decode(z, y), model.decode(same, y)), "smaller numbers of the category have no effect"
    same[:, 2] = 20
    assert not torch.equal(model.decode(z, y), model.decode(same, y))


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.auxiliary: 12 codes of 4 numbers.*model.latent_dim to 12"):
        zoo.create_model("infogan", data=SPECS["image"], latent_dim=4)
    with pytest.raises(ConfigError, match=r"no labels. Set model.conditional=true"):
        zoo.create_model("acgan", data=SPECS["image"], conditional=False)
