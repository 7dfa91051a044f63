"""MIDI files come back as they were, and other programs' files are read."""

import pytest
import torch

import zoo
from zoo.core.errors import ConfigError, DataError
from zoo.data.music.midi_file import held_notes, read_midi, write_midi
from zoo.data.music.note import REST

mido = pytest.importorskip("mido")


def music(seed, steps=64):
    """Four voices in separate ranges, with rests; a note lasts two steps or a multiple."""
    generator = torch.Generator().manual_seed(seed)
    tops = torch.tensor([72, 64, 55, 45])
    frames = tops + torch.randint(4, (steps // 2, 4), generator=generator)
    frames[torch.rand(steps // 2, 4, generator=generator) < 0.1] = REST
    return frames.repeat_interleave(2, 0)


@pytest.mark.parametrize("seed", range(3))
def test_music_comes_back(seed, tmp_path):
    frames = music(seed)
    write_midi(tmp_path / "a.mid", frames, 4, 90)
    assert torch.equal(read_midi(tmp_path / "a.mid", 4, 4), frames)
    assert mido.MidiFile(tmp_path / "a.mid").length == pytest.approx(64 / 4 * 60 / 90)
    changed = frames.clone()
    changed[10, 2] += 1
    write_midi(tmp_path / "b.mid", changed, 4, 90)
    assert not torch.equal(read_midi(tmp_path / "b.mid", 4, 4), frames)


@pytest.mark.parametrize("steps", [3, 7, 97, 960])
def test_every_grid_comes_back(steps, tmp_path):
    write_midi(tmp_path / "a.mid", music(0, 2 * steps), steps, 90)
    assert torch.equal(read_midi(tmp_path / "a.mid", 4, steps), music(0, 2 * steps))
    assert mido.MidiFile(tmp_path / "a.mid").length == pytest.approx(2 * 60 / 90)


def test_no_voice_is_played_by_drums(tmp_path):
    chord = torch.arange(20).flip(0).repeat(4, 1) + 40
    write_midi(tmp_path / "a.mid", chord, 4, 90)
    assert torch.equal(read_midi(tmp_path / "a.mid", 20, 4), chord)


def test_equal_pitches_are_one_note():
    assert held_notes(torch.tensor([[60], [60], [REST], [60], [62]])) == [(0, 0, 2, 60), (0, 3, 4, 60), (0, 4, 5, 62)]


def test_a_piano_part_gives_its_highest_notes(tmp_path):
    file, track = mido.MidiFile(ticks_per_beat=96), mido.MidiTrack()
    file.tracks.append(track)
    for pitch in (60, 64, 67, 48):
        track.append(mido.Message("note_on", note=pitch, velocity=64, time=0))
    track.append(mido.Message("note_on", channel=9, note=35, velocity=64, time=0))  # a drum
    track.append(mido.Message("note_on", note=67, velocity=0, time=49))  # off, rounded to two steps
    for pitch in (60, 64, 48):
        track.append(mido.Message("note_off", note=pitch, time=47 if pitch == 60 else 0))
    file.save(tmp_path / "piano.mid")
    assert read_midi(tmp_path / "piano.mid", 3, 4).tolist() == [[67, 64, 60]] * 2 + [[64, 60, 48]] * 2
    assert read_midi(tmp_path / "piano.mid", 1, 4).tolist() == [[67]] * 2 + [[64]] * 2, "the highest of one part"


def test_a_folder_is_split_by_names_and_bad_files_are_named(tmp_path):
    for number in range(12):
        write_midi(tmp_path / "deep" / f"{number}.mid", music(number), 4, 90)
    data = zoo.create_data("midi", path=str(tmp_path), batch_size=2, steps=16)
    data.setup()
    assert [len(part) for part in data.pieces] == [10, 1, 1]
    whole = torch.cat([p for part in data.pieces for p in part])
    assert sorted(whole.flatten().tolist()) == sorted(torch.cat([music(n) for n in range(12)]).flatten().tolist())
    (tmp_path / "bad.mid").write_bytes(b"MThd nothing")
    (tmp_path / "empty.mid").touch()
    with pytest.raises(
        DataError, match=r"2 files cannot be read: bad\.mid \(not a MIDI file .*\), empty.mid .*=skip\.$"
    ):
        zoo.create_data("midi", path=str(tmp_path)).setup()
    rest = zoo.create_data("midi", path=str(tmp_path), batch_size=2, steps=16, on_error="skip")
    rest.setup()
    assert sum(len(part) for part in rest.pieces) == 12
    with pytest.raises(DataError, match="not a folder"):
        zoo.create_data("midi", path=str(tmp_path / "none")).setup()


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mido", None)
    with pytest.raises(ConfigError, match=r"generative-zoo\[music\]"):
        write_midi(tmp_path / "a.mid", music(0), 4, 90)


@pytest.mark.parametrize("division", [b"\x00\x00", b"\xe1\xd8"])
def test_a_file_whose_time_is_not_in_beats_is_refused(tmp_path, division: bytes) -> None:
    header = b"MThd" + (6).to_bytes(4) + b"\x00\x00\x00\x01" + division
    (tmp_path / "a.mid").write_bytes(header + b"MTrk" + (12).to_bytes(4) + bytes.fromhex("00903c5010803c0000ff2f00"))
    with pytest.raises(DataError, match="not in beats"):
        read_midi(tmp_path / "a.mid", 1, 4)


@pytest.mark.parametrize("kind", [2, 3, 7])
def test_tracks_that_are_not_simultaneous_are_refused(tmp_path, kind: int) -> None:
    write_midi(tmp_path / "a.mid", music(0), 4, 90)
    content = bytearray((tmp_path / "a.mid").read_bytes())
    content[9] = kind
    (tmp_path / "a.mid").write_bytes(content)
    with pytest.raises(DataError, match=f"MIDI of type {kind}"):
        read_midi(tmp_path / "a.mid", 4, 4)
