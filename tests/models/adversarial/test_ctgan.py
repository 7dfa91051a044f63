"""CTGAN obeys its conditions, and its samples have the frequencies of the training data."""

import math
from functools import cache

import pytest
import torch

from tests.data.table.examples import SPEC, rows
from zoo.core.errors import DataError
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.models.adversarial.ctgan import CTGAN
from zoo.nn.blocks.table_codec import TableCodec

SMALL = {"name": "mlp", "width": 32, "depth": 1}
SETTINGS = {"generator": SMALL, "discriminator": SMALL, "noise_dim": 4, "n_modes": 3, "feature_dim": 8, "pack": 2}


def made(**settings: object) -> CTGAN:
    torch.manual_seed(0)
    return CTGAN(SPEC, **(SETTINGS | {"ema_halflife_images": 0.0} | settings))


@cache
def obedient(weight: float = 1.0) -> CTGAN:
    """A generator that learned its conditions alone, with the frequencies of other rows."""
    model = made(condition_weight=weight)
    batch = Batch(rows(200), torch.zeros(200))
    optimizer = torch.optim.Adam(model.generator.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (weight * model.generator_terms(batch)["loss_g"]).backward()
        optimizer.step()
    model.generator_ema.update(model.generator, 1)
    model.shares.copy_(model.sampling(batch.x).counts)
    return model.eval()


def test_the_cross_entropy_is_that_of_the_condition_alone() -> None:
    """By hand: choices of 4 and 2 places, and logits that differ in one place each."""
    model = made()
    raw = torch.zeros(3, model.modes.width)
    raw[0, 1], raw[1, 5], raw[:, 6:] = 2.0, -1.0, 50.0  # modes and values do not count
    found = model.condition_nats(raw, torch.tensor([1, 5, 3]))
    by_hand = [math.log(math.e**2 + 3) - 2, math.log(1 + math.exp(-1)) + 1, math.log(4)]
    torch.testing.assert_close(found, torch.tensor(by_hand))
    assert model.condition_nats(raw, torch.tensor([0, 5, 3]))[0] > found[0] + 1, "another place costs more"
    terms = [made(condition_weight=w).generator_terms(Batch(rows(8), torch.zeros(8))) for w in (0.0, 3.0)]
    assert terms[0]["condition_nats"] == terms[1]["condition_nats"]
    torch.testing.assert_close(terms[1]["loss_g"] - terms[0]["loss_g"], 3 * terms[0]["condition_nats"])


def test_a_critic_of_packs_sees_rows_with_their_conditions() -> None:
    model = made()
    wide, condition = torch.arange(4.0)[:, None].expand(-1, 3), 10 + torch.arange(4.0)[:, None]
    assert model.packed(wide, condition).tolist() == [[0, 0, 0, 10, 1, 1, 1, 11], [2, 2, 2, 12, 3, 3, 3, 13]]
    assert [model.rows_of(Batch(torch.zeros(n, 1), torch.zeros(n))) for n in (1, 2, 5)] == [2, 2, 6]


def test_a_critic_of_slope_one_has_no_penalty() -> None:
    model = made()

    def linear(packed: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return slope * packed.sum(1) / packed.shape[1] ** 0.5

    model.discriminator.forward = linear
    for slope in (1.0, 3.0):
        terms = model.discriminator_terms(Batch(rows(8), torch.zeros(8)))
        assert terms["gp"].item() == pytest.approx(10 * (slope - 1) ** 2, abs=1e-3)
        expected = terms["logit_fake"] - terms["logit_real"] + terms["gp"]
        torch.testing.assert_close(terms["loss_d"].detach(), expected)


def test_the_generator_obeys_and_conditions_have_their_frequencies() -> None:
    model = obedient()
    n = 3_000
    x = model.sample(n, generator=make_generator(0))
    u = torch.erf(model.randn(n, model.latent_dim, generator=make_generator(0))[:, model.noise_dim] / 2**0.5) / 2 + 0.5
    mass = model.shares.cumsum(0) / model.shares.sum()
    places = (mass <= u[:, None]).sum(1)
    found = torch.bincount(places, minlength=6) / n
    shares = model.shares / model.shares.sum()
    assert ((found - shares).abs() < 4 * (shares * (1 - shares) / n).sqrt()).all()
    kept = x[:, model.modes.chosen_at].gather(1, places[:, None]).mean()
    assert kept > 0.95
    disobedient = obedient(0.0)
    other = disobedient.sample(n, generator=make_generator(0))
    assert other[:, disobedient.modes.chosen_at].gather(1, places[:, None]).mean() < 0.7


def test_given_categories_are_kept_and_others_are_refused() -> None:
    model, codec = obedient(), TableCodec(SPEC.x)
    cells = codec.decode(model.sample(40, generator=make_generator(1), where="colour=red"))
    assert set(cells[:, 0].tolist()) == {1}
    cells = codec.decode(model.sample(40, generator=make_generator(1), where="colour=white,size="))
    assert set(cells[:, 0].tolist()) == {2}
    assert cells[:, 2].isnan().all()
    first, more = (model.sample(n, generator=make_generator(1), where="size=") for n in (5, 9))
    assert torch.equal(first, more[:5])
    with pytest.raises(DataError, match="size is a number"):
        model.sample(2, where="size=1.5")
    with torch.no_grad():
        model.generator.network.layers[-1].bias[1] = -1e4  # no red
        model.generator_ema.update(model.generator, 1)
    try:
        with pytest.raises(DataError, match="did not have these cells"):
            model.sample(2, generator=make_generator(1), where="colour=red")
    finally:
        obedient.cache_clear()


def test_a_fit_learns_frequencies_and_modes_once() -> None:
    model = made()

    class Data:
        train = (rows(100), torch.zeros(100))

        @staticmethod
        def fetch(split, index, generator, train):
            return split[0][index], split[1][index]

    assert not model.modes.fitted
    model.fit_to_data(Data)  # type: ignore[arg-type]
    assert torch.equal(model.shares, Data.train[0][:, model.modes.chosen_at].sum(0))
    before = model.modes.means.clone()
    Data.train = (rows(100)[:50], torch.zeros(50))
    model.fit_to_data(Data)  # type: ignore[arg-type]
    assert torch.equal(model.modes.means, before)
    assert len(model.table_of(Data.train[0]).x) == 50
