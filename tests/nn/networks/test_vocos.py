"""A steady spectrogram: the phases of a vocoder advance."""

import math

import torch

from zoo.nn.networks.vocos import Vocos


def test_a_steady_spectrogram_makes_a_tone_whose_period_is_not_that_of_the_frames():
    """The head repeats its numbers in every frame; the tone has the frequency of its advance."""
    torch.manual_seed(0)
    n_fft, hop, samples = 64, 16, 2048
    network = Vocos(4, samples, n_fft, hop, width=8, n_layers=1)
    bins, bend = n_fft // 2 + 1, 0.4  # radians per frame, beside the middle of the bin
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.fill_(-20.0)
        network.head.bias[bins:] = 0.0
        network.head.bias[9:12] = 1.0  # log magnitudes: bins 9 to 11 are loud
        network.head.bias[2 * bins + 9 : 2 * bins + 12] = torch.tensor([math.pi / 2, 0, -math.pi / 2]) + bend
        network.head.bias[bins : 2 * bins][9] = network.head.bias[bins : 2 * bins][11] = math.pi
        wave = network(torch.randn(1, 4, 1 + samples // hop))[0]
    power = torch.fft.rfft(wave * torch.hann_window(samples)).abs().square()
    frequency = 2 * math.pi * float(power.argmax()) / samples  # radians per sample
    expected = 2 * math.pi * 10 / n_fft + bend / hop
    assert abs(frequency - expected) < 2 * math.pi / samples, "the advance is added to that of the bin"
    assert abs(frequency - 2 * math.pi * 10 / n_fft) > 4 * math.pi / samples


def test_phases_of_long_sounds_keep_their_precision() -> None:
    """A minute of frames, in single precision, against exact numbers of turns."""
    n_fft, hop, frames = 1024, 192, 5_000
    network = Vocos(4, hop * (frames - 1), n_fft, hop, width=8, n_layers=1)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
        phase = network.polar(torch.randn(1, 4, frames))[1][0].double()
    place = torch.arange(1, frames + 1) * hop * torch.arange(n_fft // 2 + 1)[:, None] % n_fft
    exact = 2 * math.pi * place.double() / n_fft

    def error(angles: torch.Tensor) -> float:
        return float(
            torch.polar(torch.ones_like(angles), angles).sub(torch.polar(torch.ones_like(exact), exact)).abs().max()
        )

    assert error(phase) < 0.02
    whole = 2 * math.pi * hop / n_fft * torch.arange(n_fft // 2 + 1)[:, None].expand(-1, frames).cumsum(1)
    assert error(whole.double()) > 0.05, "the control: turns that are not removed"
