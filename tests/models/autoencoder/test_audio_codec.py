"""Sounds as codes: odd lengths, both ways, a prior over the codes, files of samples."""

import itertools

import pytest
import torch

import zoo
from tests.contracts.specs import SIZES
from zoo.core.errors import DataError
from zoo.core.registry import build
from zoo.core.spaces import Audio, Codes, Image, Label, Tokens
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.word import Word
from zoo.models.abilities import SupportsCodebook, SupportsFirstStage, SupportsLikelihood
from zoo.models.ability import supports

IMAGES = zoo.DataSpec(Image(1, 8, 8), name="digits")
SPEC = zoo.DataSpec(Audio(1, 333, 8000), Label(4), name="sounds")
RVQ = {"name": "rvq", "n_codes": 8, "depth": 3, "dim": 4}
NETWORK = {"name": "seanet", "width": 4, "strides": [4, 5]}
CODEC = {"name": "vqvae", "quantizer": RVQ, "network": NETWORK, "likelihood": "spectral"}


def codec(**settings):
    torch.manual_seed(0)
    model = build("model", CODEC | settings, SPEC).train()
    x = torch.randn(8, 1, 333, generator=make_generator(0)) / 10
    model.loss(Batch(x, torch.zeros(8, dtype=torch.long)))["loss"].backward()  # fills the codebooks
    model.density.fit(model.latents_to_fit(Batch(x, x)))
    return model.eval(), x


def test_codes_of_a_sound_of_odd_length_and_the_sound_of_codes():
    model, x = codec()
    assert model.latent_space() == Codes((17, 3), 8)
    assert supports(model, SupportsFirstStage)
    assert supports(model, SupportsCodebook)
    assert not supports(model, SupportsLikelihood), "the distance is not a likelihood"
    z = model.to_latent(x)
    assert (z.shape, z.dtype) == ((8, 17, 3), torch.int64)
    assert torch.equal(model.to_latent(x), z)
    assert torch.equal(model.vectors(z), model.quantizer.vectors(z.view(-1, 3)).view(8, 17, 4).mT)
    wave = model.from_latent(z)
    assert wave.shape == x.shape
    assert torch.allclose(wave, model.reconstruct(x), atol=1e-6)
    assert not torch.allclose(model.from_latent((z + 1) % 8), wave, atol=1e-3)
    assert float(wave.abs().max()) <= 1
    assert float(wave.min()) < 0, "sounds are not clamped as images are"
    assert model.code_counts(x).shape == (3, 8)
    assert model.sample(2, generator=make_generator(0)).shape == (2, 1, 333)


def test_residual_codebooks_halve_the_error():
    """Each further codebook of random vectors brings the sum nearer to the vector, on average."""
    model, x = codec()
    with torch.no_grad():
        maps = model.network.encode(x).movedim(1, -1).flatten(0, 1)
        layers, code, errors = model.quantizer.layers, torch.zeros_like(maps), []
        for layer in layers:
            code = code + layer.vectors(layer.nearest(maps - code))
            errors.append(float((maps - code).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < float(maps.square().mean())


@pytest.mark.parametrize("name", ["language_model", "pixel_transformer", "masked_diffusion"])
def test_priors_over_the_codes_of_sounds(name):
    backbone = {"name": "transformer_encoder" if name == "masked_diffusion" else "transformer", **SIZES}
    settings = {"name": "two_stage", "first_stage": CODEC, "second_stage": {"name": name, "backbone": backbone}}
    torch.manual_seed(0)
    model = build("model", settings, SPEC)
    x = torch.randn(6, 1, 333, generator=make_generator(0)) / 10
    model.first_stage.train()
    model.first_stage.loss(Batch(x, x))
    model.eval()
    batch = Batch(x, torch.arange(6) % 4)
    terms = model.loss(batch)
    terms["loss"].backward()
    assert all(p.grad is None for p in model.first_stage.parameters())
    codes = model.first_stage.to_latent(x)
    read = model.encoded(batch)
    if name == "language_model":
        assert torch.equal(read.y, codes.flatten(1)), "the codes of one vector are neighbours"
    else:
        assert torch.equal(read.x, codes)
    found = model.sample(2, generator=make_generator(1))
    assert found.shape == (2, 1, 333)
    assert float(found.abs().max()) <= 1


def test_images_have_other_networks():
    with pytest.raises(zoo.ZooError, match="needs sounds"):
        build("model", {"name": "vqvae", "network": "seanet", "likelihood": "gaussian"}, IMAGES)
    with pytest.raises(zoo.ZooError, match="model=audio_codec"):
        build("model", {"name": "vqvae", "network": "resnet", "likelihood": "gaussian"}, SPEC)


def test_a_training_writes_sounds_and_the_use_of_the_codebook(tmp_path):
    data = zoo.create_data("synthetic_sounds", samples=512, batch_size=8)
    data.setup()
    for part in ("train", "val", "test"):
        setattr(data, part, tuple(one[:24] for one in getattr(data, part)))
    small = {"quantizer": {"n_codes": 16}, "network": {"width": 4, "strides": [8, 8]}}
    model = zoo.create_model("audio_codec", data=data, **small)
    run = tmp_path / "codec"
    zoo.fit(model, data, max_steps=4, folder=run, progress=False, accelerator="cpu")
    assert (run / "samples" / "final-sound.wav").is_file()
    assert (run / "samples" / "final-reconstructions.png").is_file()
    assert "val/code_perplexity" in (run / "metrics.csv").read_text()


# -- text to speech: a prior over codes that reads texts ------------------------------------------------------------

WORDS = Word().fit(["one by ann", "two by bob"])
TEXT = Tokens(3, WORDS.vocab_size, dumps(WORDS))


def speaking():
    """A codec of eight codes on a grid of 2 x 2, and a prior over them that reads texts."""
    torch.manual_seed(0)
    spec = zoo.DataSpec(Audio(1, 32, 8000), TEXT, name="speech")
    first = CODEC | {"quantizer": RVQ | {"n_codes": 3, "depth": 2}, "network": NETWORK | {"strides": [4, 4]}}
    prior = {"name": "pixel_transformer", "backbone": {"name": "transformer", **SIZES}}
    model = build("model", {"name": "two_stage", "first_stage": first, "second_stage": prior}, spec)
    for p in model.prior.parameters():
        p.data.add_(torch.randn(p.shape, generator=make_generator(1)) / 5)
    model.first_stage.train().loss(Batch(torch.randn(8, 1, 32) / 10, torch.zeros(8)))  # fills the codebooks
    return model.eval()


def test_probabilities_of_codes_given_each_text_sum_to_one():
    model = speaking().double()
    codes = torch.tensor(list(itertools.product(range(3), repeat=4))).view(81, 2, 2)
    texts = model.text_condition(["one by ann", "two by bob"])
    with torch.no_grad():
        each = torch.stack([model.prior.log_prob(codes, text.expand(81, -1)) for text in texts])
    torch.testing.assert_close(each.exp().sum(1), torch.ones(2, dtype=torch.float64))
    assert (each[0] - each[1]).abs().max() > 1e-3, "every text has a distribution of its own"


def test_samples_given_a_text_are_decoded_codes_of_its_distribution():
    model, n = speaking(), 3000
    texts = model.text_condition(["one by ann", "two by bob"])
    codes = torch.tensor(list(itertools.product(range(3), repeat=4))).view(81, 2, 2)
    sounds = model.decoded(codes).double().flatten(1)  # (81, 32)
    gaps = (sounds[:, None] - sounds).square().sum(2) + torch.eye(81)
    assert gaps.min() > 1e-9, "every code has a sound of its own"
    drawn = model.sample(n, condition=texts[:1].expand(n, -1), generator=make_generator(0)).double().flatten(1)
    place = (drawn[:, None] - sounds).square().sum(2).argmin(1)
    seen = place.bincount(minlength=81) / n
    with torch.no_grad():
        p, other = (model.prior.log_prob(codes, text.expand(81, -1)).exp() for text in texts)
    limit = 5 * (p * (1 - p) / n).sqrt() + 2 / n
    assert ((seen - p).abs() < limit).all()
    assert ((seen - other).abs() > limit).any(), "the other text has another distribution"


def test_a_prior_that_reads_texts_is_trained_and_asked_with_them():
    model = speaking()
    x, texts = torch.randn(4, 1, 32, generator=make_generator(2)) / 10, model.text_condition(["one by ann"] * 4)
    loss = model.loss(Batch(x, texts))["loss"]
    assert torch.isclose(loss, -model.prior.log_prob(model.to_latent(x), texts).mean())
    assert not torch.isclose(loss, model.loss(Batch(x, model.text_condition(["two by bob"] * 4)))["loss"])
    assert model.sample(2, generator=make_generator(0)).shape == (2, 1, 32), "without a text"
    with pytest.raises(DataError, match="2 for 3 samples"):
        model.sample(3, condition=texts[:2])
    with pytest.raises(DataError, match="not a batch of tokens"):
        model.sample(4, condition=torch.zeros(4, dtype=torch.long))
    plain = {"name": "two_stage", "first_stage": CODEC, "second_stage": model.hparams["second_stage"]}
    with pytest.raises(DataError, match="not conditioned on texts"):
        build("model", plain, SPEC).text_condition(["one"])
