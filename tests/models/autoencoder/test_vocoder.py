"""Sounds from mel spectrograms: the head, odd lengths, a first stage, and a training that beats Griffin-Lim."""

import math

import pytest
import torch

import zoo
from zoo.benchmarks.resynthesis import compare, from_mel
from zoo.core.registry import build
from zoo.core.spaces import Audio, Image, Label
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.models.autoencoder.vocoder import Vocoder
from zoo.nn.blocks.spectral import log_mel, stft
from zoo.nn.networks.vocos import MAX_LOG, Vocos, inverse_transform

SPEC = zoo.DataSpec(Audio(2, 333, 8000), Label(4), name="sounds")
SMALL = {"n_mels": 12, "n_fft": 64, "hop": 16, "waveform_decoder": {"name": "vocos", "width": 16, "n_layers": 1}}


def vocoder(**settings) -> Vocoder:
    torch.manual_seed(0)
    model: Vocoder = build("model", {"name": "vocoder", **SMALL, **settings}, SPEC)
    return model.eval()


@pytest.mark.parametrize("samples", [80, 333, 1000])
@pytest.mark.parametrize(("n_fft", "hop"), [(64, 16), (128, 32)])
def test_the_head_with_the_true_magnitudes_and_phases_is_the_identity(samples, n_fft, hop):
    x = torch.randn(3, samples, generator=make_generator(0))
    spectrum = stft(x, n_fft, hop)
    log_magnitude, phase = spectrum.abs().log(), spectrum.angle()
    found = inverse_transform(log_magnitude, phase, n_fft, hop, samples)
    assert torch.allclose(found, x, atol=1e-5)
    turned = inverse_transform(log_magnitude, phase + 2 * math.pi, n_fft, hop, samples)
    assert torch.allclose(turned, x, atol=1e-4), "angles wrap around"
    assert not torch.allclose(inverse_transform(log_magnitude, phase + 0.1, n_fft, hop, samples), x, atol=1e-2)
    assert not torch.allclose(inverse_transform(log_magnitude + 0.1, phase, n_fft, hop, samples), x, atol=1e-2)


def test_large_magnitudes_are_bounded_and_gradients_finite():
    network = Vocos(8, 100, 32, 8, width=8, n_layers=2)
    mel = torch.full((2, 8, 13), 1e4)
    found = network(mel)
    assert found.shape == (2, 100)
    assert float(found.detach().abs().max()) <= math.exp(MAX_LOG) * 32
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_mel_spectrograms_are_images():
    model = vocoder()
    assert model.latent_space() == Image(2, 12, 1 + 333 // 16, levels=0), "continuous"
    for x in (torch.zeros(1, 2, 333), torch.ones(1, 2, 333), (torch.arange(666) % 2 * 2.0 - 1).view(1, 2, 333)):
        assert 0 <= float(model.mel(x).min()) <= float(model.mel(x).max()) <= 1, "the range holds every sound"
    x = torch.randn(3, 2, 333, generator=make_generator(0)) / 10
    z = model.to_latent(x)
    model.latent_space().validate(z)
    scale = model.highest - math.log(1e-8)
    assert torch.allclose(z * scale + math.log(1e-8), log_mel(x, 8000, 64, 16, 12), atol=1e-4)
    assert torch.equal(model.from_latent(z), model.reconstruct(x))
    assert model.reconstruct(x).shape == x.shape
    assert torch.equal(model.decode(model.encode(x)), model.reconstruct(x))
    assert torch.allclose(model.reconstruct(x)[:, 1:], model.from_latent(z[:, 1:]), atol=1e-6), "channels are alone"


def test_the_loss_is_zero_for_the_sound_itself(monkeypatch):
    model = vocoder()
    x = torch.randn(2, 2, 333, generator=make_generator(0)) / 10
    batch = Batch(x, torch.zeros(2, dtype=torch.long))
    assert float(model.loss(batch)["loss"]) > 0.1
    monkeypatch.setattr(model, "wave", lambda mel: -x)
    assert float(model.loss(batch)["loss"]) == pytest.approx(0, abs=1e-6), "the sign has no effect on spectrograms"
    monkeypatch.setattr(model, "wave", lambda mel: 2 * x)
    terms = model.loss(batch)
    assert float(terms["mel"]) == pytest.approx(math.log(4), rel=0.01), "powers are four times as large"


def test_diffusion_learns_mel_spectrograms():
    second = {"name": "diffusion", "denoiser": {"name": "mlp", "width": 16}, "sampler": {"name": "heun", "steps": 2}}
    first = {"name": "vocoder", **SMALL}
    model = build("model", {"name": "two_stage", "first_stage": first, "second_stage": second}, SPEC)
    x = torch.randn(2, 2, 333, generator=make_generator(0)) / 10
    model.loss(Batch(x, torch.zeros(2, dtype=torch.long)))["loss"].backward()
    assert all(p.grad is None for p in model.first_stage.parameters())
    assert model.sample(2, generator=make_generator(0)).shape == x.shape


def test_griffin_lim_is_judged_on_the_same_sounds():
    x = (0.3 * torch.arange(2000)).sin()[None, None] / 4
    scores = compare(x, {"same": lambda given: given, "griffin_lim": lambda given: from_mel(given, 8000)}, 8000)
    assert scores["same"]["decibels"] == scores["same"]["convergence"] == 0
    assert 0 < scores["griffin_lim"]["convergence"] < 1
    assert scores["griffin_lim"]["times_real"] > 0


def test_a_window_longer_than_the_sound_is_refused():
    with pytest.raises(zoo.ZooError, match=r"model\.n_fft=1024: too long for 333 samples"):
        vocoder(n_fft=1024)


def test_frames_that_do_not_overlap_by_half_are_refused() -> None:
    zoo.create_model("vocoder", data="synthetic_sounds", n_fft=256, hop=128)
    with pytest.raises(zoo.ZooError, match=r"model\.hop=129: frames of 256 samples would not overlap by half"):
        zoo.create_model("vocoder", data="synthetic_sounds", n_fft=256, hop=129)
