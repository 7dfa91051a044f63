"""Sound files, folders, recordings and synthetic tones."""

import io
import shutil
import sys
import wave
import zipfile

import pytest
import torch

import zoo
from zoo.core.errors import ConfigError, DataError
from zoo.core.spaces import Audio
from zoo.data.audio.audio_file import normalised, read_audio, read_wav, resample
from zoo.data.audio.segments import cut
from zoo.data.audio.spoken_digits import SPEAKERS
from zoo.data.audio.synthetic_tones import NOISE, draw, tone_bits
from zoo.data.loader import make_generator
from zoo.nn.blocks.mu_law import mu_law_decode, mu_law_encode
from zoo.viz.render import renderer_of
from zoo.viz.sound import Sound, save_wav


def wav(levels, width, rate=8000):
    """A WAV file of integer levels (N, C) with so many bytes each."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(levels.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        offset = 128 if width == 1 else 0
        file.writeframes(b"".join(
            int(v + offset).to_bytes(width, "little", signed=width > 1) for v in levels.flatten().tolist()
        ))  # fmt: skip
    return buffer.getvalue()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_files_of_every_width(width):
    top = 1 << (8 * width - 1)
    levels = torch.tensor([[-top, 0], [top - 1, -1], [top // 2, 1]])
    found, rate = read_wav(wav(levels, width, 11_025))
    assert rate == 11_025
    assert torch.allclose(found, (levels.double() / top).float().T)


def test_other_formats_by_the_library(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "soundfile", None)
        with pytest.raises(ConfigError, match=r"generative-zoo\[audio\]"):
            read_audio(b"fLaC", "a.flac")
    soundfile = pytest.importorskip("soundfile")
    x = torch.linspace(-0.5, 0.5, 2000).view(2, 1000)
    for name, kind in (("a.flac", "PCM_16"), ("a.wav", "FLOAT"), ("a.ogg", "VORBIS")):
        soundfile.write(tmp_path / name, x.T.numpy(), 8000, subtype=kind)
        found, rate = read_audio(tmp_path / name, name)
        assert rate == 8000
        assert found.shape == x.shape
        if kind != "VORBIS":
            assert torch.allclose(found, x, atol=1e-4)
    with pytest.raises(DataError, match=r"b\.flac: not a sound"):
        read_audio(b"nothing", "b.flac")


def test_resampling_keeps_a_tone_and_removes_what_does_not_fit():
    time = torch.arange(8000) / 8000
    low = resample((2 * torch.pi * 500 * time).sin()[None], 8000, 4000)
    assert low.shape == (1, 4000)
    assert torch.allclose(low[0, 100:-100], (2 * torch.pi * 500 * time).sin()[::2][100:-100], atol=0.01)
    high = resample((2 * torch.pi * 3000 * time).sin()[None], 8000, 4000)
    assert float(high[0, 100:-100].abs().max()) < 0.02
    assert resample(low, 4000, 4000) is low


def test_loudness():
    x = 0.01 * torch.randn(1, 4000, generator=make_generator(0)) + 0.3
    found = normalised(x, -20.0)
    assert float(found.square().mean().sqrt()) == pytest.approx(0.1, rel=1e-4)
    assert abs(float(found.mean())) < 1e-6
    click = torch.zeros(1, 1000)
    click[0, 5] = 0.5
    assert float(normalised(click, -20.0).abs().max()) == pytest.approx(1), "never clipped"
    assert torch.equal(normalised(torch.zeros(1, 5), -20.0), torch.zeros(1, 5))
    assert normalised(x, None) is x


def test_segments_hold_the_whole_sound():
    x = torch.arange(10.0)
    assert cut(x, 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 0]]
    assert cut(x[:0], 4).tolist() == [[0] * 4]


def test_all_unreadable_sounds_of_a_folder_are_named_or_left_out(tmp_path, caplog):
    for number in range(6):
        save_wav(tmp_path / f"{number}.wav", Sound(torch.full((1, 250), 0.1), 8000))
    whole = (tmp_path / "0.wav").read_bytes()
    broken = {"empty.wav": b"", "cut.wav": whole[:30], "silent.wav": whole[:44], "text.wav": b"a text"}
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"4 sounds cannot be read: .*Repair or delete them") as refused:
        zoo.create_data("sounds", path=str(tmp_path), samples=100).setup()
    assert all(name in str(refused.value) for name in broken)
    assert "0x" not in str(refused.value), "no address in memory"
    rest = zoo.create_data("sounds", path=str(tmp_path), samples=100, batch_size=1, on_error="skip")
    rest.setup()
    assert sum(len(split[0]) for split in (rest.train, rest.val, rest.test)) == 6 * 3
    assert "left out" in caplog.text


def test_a_folder_has_classes_and_keeps_files_in_one_split(tmp_path):
    for name in ("bell", "drum"):
        for number in range(6):
            level = torch.full((1, 250), (number + 1) / 20 * (1 if name == "bell" else -1))
            save_wav(tmp_path / name / f"{number}.wav", Sound(level, 8000))
    data = zoo.create_data("sounds", path=str(tmp_path), samples=100, loudness=None, batch_size=2)
    data.setup()
    assert data.spec.x == Audio(1, 100, 8000)
    assert data.spec.n_classes == 2
    assert [len(part[0]) for part in (data.train, data.val, data.test)] == [30, 3, 3]
    x, y = data.fetch(data.train, torch.arange(30), make_generator(0), train=True)
    assert x.shape == (30, 1, 100)
    assert ((x[:, 0, 0] > 0) == (y == 0)).all()
    levels = [set(part[0][:, 0].tolist()) for part in (data.train, data.val, data.test)]
    assert not levels[0] & levels[1] | levels[0] & levels[2] | levels[1] & levels[2]
    (tmp_path / "one").mkdir()
    shutil.copy(next(tmp_path.rglob("*.wav")), tmp_path / "one" / "a.wav")
    with pytest.raises(DataError, match="1 sound, too few to split"):
        zoo.create_data("sounds", path=str(tmp_path / "one"))
    (tmp_path / "one" / "b.wav").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"b\.wav: "):
        zoo.create_data("sounds", path=str(tmp_path / "one"))
    with pytest.raises(DataError, match="not a folder"):
        zoo.create_data("sounds", path=str(tmp_path / "none"))


def test_spoken_digits_by_takes(tmp_path):
    with zipfile.ZipFile(tmp_path / "free-spoken-digits.zip", "w") as archive:
        for digit in range(10):
            for take in range(12):
                archive.writestr(f"recordings/{digit}_ann_{take}.wav", wav(torch.randint(-999, 999, (300, 1)), 2))
    data = zoo.create_data("spoken_digits", path=str(tmp_path), samples=256, batch_size=4)
    data.setup()
    assert [len(part[0]) for part in (data.train, data.val, data.test)] == [20, 50, 50]
    assert data.test[1].bincount().tolist() == [5] * 10
    with pytest.raises(DataError, match=r"ann_.*another speaker"):
        zoo.create_data("spoken_digits", path=str(tmp_path), speakers=True).setup()
    (tmp_path / "free-spoken-digits.zip").write_bytes(b"no")
    with pytest.raises(DataError, match="not the spoken digits"):
        zoo.create_data("spoken_digits", path=str(tmp_path)).setup()
    with pytest.raises(DataError, match="synthetic_tones"):
        zoo.create_data("spoken_digits", path=str(tmp_path / "none")).setup()


def test_labels_of_digits_and_speakers(tmp_path):
    with zipfile.ZipFile(tmp_path / "free-spoken-digits.zip", "w") as archive:
        for digit in range(10):
            for speaker in SPEAKERS:
                for take in (0, 5, 10):
                    archive.writestr(f"recordings/{digit}_{speaker}_{take}.wav", wav(torch.ones(300, 1).int(), 2))
    data = zoo.create_data("spoken_digits", path=str(tmp_path), samples=256, speakers=True, batch_size=4)
    data.setup()
    assert data.spec.n_classes == 60
    expected = [digit + 10 * speaker for digit in range(10) for speaker in range(6)]
    assert [part[1].tolist() for part in (data.train, data.val, data.test)] == [expected] * 3
    alone = zoo.create_data(
        "spoken_digits", path=str(tmp_path), samples=256, speakers=True, unseen="theo", batch_size=4
    )
    alone.setup()
    theo = SPEAKERS.index("theo")
    assert (alone.test[1] // 10 == theo).all()
    assert len(alone.test[1]) == 30, "all takes"
    assert theo not in (torch.cat([alone.train[1], alone.val[1]]) // 10).tolist()
    assert [len(part[1]) for part in (alone.train, alone.val)] == [100, 50], (
        "takes 0 to 4 of the others are for training"
    )
    assert alone.variant == "speakers_without_theo"


def edges():
    """Bounds of the mu-law intervals."""
    middle = mu_law_decode(torch.arange(256).double() + 0.5)[:-1]
    return torch.cat([torch.tensor([-torch.inf]), middle, torch.tensor([torch.inf])]).double()


def test_the_floor_of_synthetic_tones_is_a_distribution():
    clean, _ = draw(2, 3, make_generator(3))
    codes = torch.arange(256)[:, None, None].expand(-1, 2, 3)
    p = 2.0 ** -tone_bits(codes, clean.expand(256, -1, -1), edges())
    assert torch.allclose(p.sum(0), torch.ones(2, 3).double(), atol=1e-9)
    noisy = clean[0, 0] + NOISE * torch.randn(200_000, generator=make_generator(4))
    shares = mu_law_encode(noisy).bincount(minlength=256) / 200_000
    assert float((shares - p[:, 0, 0]).abs().max()) < 0.006  # five standard errors


def test_tones_have_the_pitch_of_their_label():
    data = zoo.create_data("synthetic_tones", samples=1000)
    data.setup()
    x, y = data.fetch(data.test, torch.arange(20), make_generator(0), train=False)
    peak = torch.fft.rfft(x[:, 0] * torch.hann_window(1000), 8000).abs().argmax(1) / 2  # Hz
    semitones = 12 * (peak / 261.6256).log2()
    assert torch.allclose(semitones, torch.tensor([0, 2, 4, 5, 7, 9, 11, 12.0])[y], atol=0.1)


def test_sounds_are_drawn_and_heard():
    renderer = renderer_of(Audio(1, 512, 8000))
    time = torch.arange(512) / 8000
    picture = renderer.single((2 * torch.pi * 1000 * time).sin()[None])
    brightest = int(picture.astype(int).sum(2).mean(1).argmax())
    assert brightest == pytest.approx(picture.shape[0] * 3 / 4, abs=3), "1 kHz is a quarter from the bottom"
    sound = renderer.sound(torch.zeros(2, 1, 512))
    assert (sound.rate, sound.wave.shape[1]) == (8000, 2 * 512 + 4000)
    assert renderer.render(torch.rand(3, 1, 512)).ndim == 3
    assert renderer.single(torch.zeros(1, 3)).ndim == 3, "shorter than a window"
