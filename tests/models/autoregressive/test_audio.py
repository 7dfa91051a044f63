"""Sounds as tokens: exact bits per sample, above the known floor."""

import math

import pytest
import torch

import zoo
from tests.data.audio.test_audio import edges
from zoo.cli.main import main
from zoo.core.spaces import Audio
from zoo.data.audio.synthetic_tones import SIZES, draw, tone_bits
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.nn.blocks.mu_law import mu_law_encode

SPEC = zoo.DataSpec(Audio(2, 5, 8000), name="sound")


def wavenet(spec, **settings):
    torch.manual_seed(0)
    return zoo.create_model("wavenet", data=spec, backbone={"d_model": 8, "n_layers": 4, "cycle": 4}, **settings)


def test_samples_are_sounds_and_their_likelihood_is_that_of_their_codes():
    model = wavenet(SPEC)
    x = model.sample(3, seed=0)
    assert x.shape == (3, 2, 5)
    assert -1 <= float(x.min()) <= float(x.max()) <= 1
    tokens = model.tokens(x)
    assert torch.equal(model.tokens(model.images(tokens)), tokens)
    assert tokens[0, :2].tolist() == mu_law_encode(x[0, :, 0]).tolist(), "channels of a sample follow each other"
    expected = -10 * math.log(256)  # an untrained head is uniform
    assert model.log_prob(x).tolist() == pytest.approx([expected] * 3, rel=1e-5)
    loss = model.loss(Batch(x, torch.zeros(3, dtype=torch.long)))
    assert float(loss["bits_per_dim"]) == pytest.approx(8, rel=1e-5)


def test_a_patch_is_refused():
    with pytest.raises(zoo.ZooError, match="no pixels"):
        wavenet(SPEC, patch=[1, 2])


def test_training_approaches_the_floor_from_above(tmp_path, cli):
    data = zoo.create_data("synthetic_tones", samples=64, batch_size=16)
    model = zoo.fit(wavenet(data.spec), data, max_steps=60, folder=tmp_path / "run", progress=False, accelerator="cpu")
    generator = make_generator(0)
    for n in SIZES[:1]:  # the tones that `read` draws first
        clean, _ = draw(n, 64, generator)
    x, _ = data.fetch(data.train, torch.arange(200), make_generator(0), train=False)
    floor = float(tone_bits(mu_law_encode(x[:, 0]), clean[:200], edges()).mean())
    with torch.no_grad():
        bits = float(-model.log_prob(x).mean()) / 64 / math.log(2)
    assert floor < bits < 7.5, "8 is that of an untrained model"
    assert (tmp_path / "run" / "samples" / "final-sound.wav").is_file()
    result = cli("sample", str(tmp_path / "run"), "-n", "2", "--out", "a.wav", entry=main)
    assert result.code == 0, result.err
