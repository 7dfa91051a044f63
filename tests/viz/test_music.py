"""Music is drawn at its places, and heard at its pitches."""

import wave

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from zoo.core.spaces import Audio
from zoo.data.audio.synthesizer import hertz, mix, tone
from zoo.data.music.note import REST, Note, to_tokens, voices_space
from zoo.viz.files import check_out, write_samples
from zoo.viz.music import COLOURS, KEY, MARGIN, STEP, roll
from zoo.viz.render import has_renderer, renderer_of
from zoo.viz.sound import Sound, joined, save_wav

SPACE = voices_space(8, 4, 4, 120)
FRAMES = torch.tensor([[72, 64, 60, 48]] * 4 + [[74, 65, 59, REST]] * 4)


def pieces():
    """A whole piece, and one that ends after four steps."""
    return pad_sequence([to_tokens(FRAMES), to_tokens(FRAMES[:4])], True, padding_value=Note().end)


def fundamental(sound, rate):
    """Frequency by the first large peak of the autocorrelation, to a part of a sample."""
    spectrum = torch.fft.rfft(sound, 2 * len(sound)).abs().square()
    auto = torch.fft.irfft(spectrum)[: len(sound) // 2]
    peaks = (auto[1:-1] > auto[:-2]) & (auto[1:-1] >= auto[2:]) & (auto[1:-1] > 0.8 * auto[0])
    lag = int(peaks.nonzero()[0]) + 1
    a, b, c = auto[lag - 1 : lag + 2].tolist()
    return rate / (lag + (a - c) / (2 * (a - 2 * b + c)))


@pytest.mark.parametrize("pitch", [45, 60, 69, 81])
def test_a_tone_has_the_frequency_of_its_pitch(pitch):
    sound = tone(hertz(pitch), 1.0, 22_050)
    semitones = 12 * np.log2(fundamental(sound, 22_050) / hertz(pitch))
    assert abs(semitones) < 0.05
    assert abs(12 * np.log2(fundamental(sound, 22_050) / hertz(pitch + 1))) > 0.9, "a semitone is noticed"
    assert hertz(69) == 440
    assert float(sound.abs().max()) <= 1


def test_partials_beyond_half_the_rate_are_left_out():
    spectrum = torch.fft.rfft(tone(3000.0, 1.0, 8000)).abs()
    assert int(spectrum.argmax()) == pytest.approx(3000, abs=2)
    assert float(spectrum[:2800].max()) < 0.05 * float(spectrum.max())


def test_a_mixture_is_the_sum_and_never_too_loud():
    one = mix([(0.0, 0.5, 60)], 8000, 1.0)
    assert torch.allclose(mix([(0.25, 0.5, 60)], 8000, 1.0)[2000:6000], one[:4000])
    loud = mix([(0.0, 1.0, 60)] * 9, 8000, 1.0)
    assert float(loud.abs().max()) == pytest.approx(1)
    assert len(mix([], 8000, 0.0)) == 0


def test_a_roll_has_each_voice_in_its_place():
    picture = roll(FRAMES, 4)
    high = 74 + 3
    for voice in range(4):
        for step in (0, 3, 5):
            pitch = int(FRAMES[step, voice])
            if pitch != REST:
                at = picture[KEY * (high - 1 - pitch) + 2, MARGIN + STEP * step + 3]
                assert tuple(at) == COLOURS[voice]
    assert not (picture[:, MARGIN + STEP * 5 : MARGIN + STEP * 8] == COLOURS[3]).all(2).any(), "the bass rests"
    assert roll(torch.full((3, 4), REST), 4).ndim == 3


def test_files_of_samples(tmp_path):
    renderer = renderer_of(SPACE)
    x = pieces()
    for name in ("a.png", "a.wav", "a.npy", "folder"):
        check_out(tmp_path / name, renderer)
        write_samples(x, tmp_path / name, renderer)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getframerate() == 22_050
        assert file.getnframes() / 22_050 == pytest.approx(1 + 0.5 + 0.5, abs=1e-3)  # two pieces and a pause
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == ["0.wav", "1.wav"]
    assert renderer.render(x).shape[0] > renderer.single(x[0]).shape[0]


def test_a_midi_file_of_samples_comes_back(tmp_path):
    pytest.importorskip("mido")
    from zoo.data.music.midi_file import read_midi

    write_samples(pieces(), tmp_path / "a.mid", renderer_of(SPACE))
    found = read_midi(tmp_path / "a.mid", 4, 4)
    assert torch.equal(found[:8], FRAMES)
    assert (found[8:16] == REST).all()
    assert torch.equal(found[16:20], FRAMES[:4])


def test_wav_files_hold_the_levels(tmp_path):
    levels = torch.linspace(-1.2, 1.2, 200).view(2, 100)
    save_wav(tmp_path / "a.wav", Sound(levels, 8000))
    with wave.open(str(tmp_path / "a.wav")) as file:
        raw = np.frombuffer(file.readframes(100), np.int16).reshape(100, 2).T / (2**15 - 1)
    assert np.abs(raw - levels.clamp(-1, 1).numpy()).max() <= 0.5 / (2**15 - 1) + 1e-9
    assert joined([levels, levels], 8000).wave.shape == (2, 4200)


def test_a_space_without_renderer_has_none():
    assert not has_renderer(Audio(1, 8, 8000)) or renderer_of(Audio(1, 8, 8000)).formats
