"""Events of music: every polyphonic piece comes back, from notes, from texts of events and from MIDI files."""

import random

import pytest
import torch

import zoo
from zoo.cli.main import main
from zoo.core.errors import DataError
from zoo.data.music.event import DRUMS, PARTS, Event, TimedNote, to_events, to_notes
from zoo.data.music.events import transposed
from zoo.data.music.midi_file import read_midi
from zoo.data.music.midi_notes import read_notes, write_notes
from zoo.data.text.tokenizers.base import dumps, loads
from zoo.viz.music import notes_of

GRID = 24


def music(seed: int, n: int = 120) -> list[TimedNote]:
    """Random notes in three parts and drums, with unisons of parts, long rests, and all velocities."""
    r = random.Random(seed)
    notes, free = [], {}
    for _ in range(n):
        part, pitch = r.choice([0, 1, 4, DRUMS]), r.choice([0, 127, *range(55, 70)])
        begin = free.get((part, pitch), 0) + r.choice([0, 0, 1, 7, 500])
        end = begin + r.choice([1, 3, 24, 97, 192])
        free[part, pitch] = end
        notes.append(TimedNote(part, begin, end, pitch, r.randint(1, 127)))
    r.shuffle(notes)
    return notes


def heard(path) -> list[tuple[int, int, int, int]]:
    """Messages of a file by absolute time, by the library alone: (time, pitch, velocity, channel), ends have 0."""
    mido = pytest.importorskip("mido")
    found = []
    for track in mido.MidiFile(path).tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type in ("note_on", "note_off"):
                loud = message.velocity if message.type == "note_on" else 0
                found.append((now, message.note, loud, message.channel))
    return sorted(found)


@pytest.mark.parametrize("seed", range(5))
def test_notes_come_back(seed) -> None:
    notes = music(seed)
    text = to_events(notes)
    assert to_notes(text) == sorted(notes)
    assert to_events(to_notes(text)) == text
    tokens = Event().encode(text)
    assert to_notes(Event().decode(tokens)) == sorted(notes)
    assert notes_of(torch.tensor([*tokens, Event().end, 3, 3])) == sorted(notes)
    longest = max(note.end for note in notes)
    assert sum(int(word[1:]) for word in text.split() if word[0] == "t") == longest


def test_a_changed_event_is_heard() -> None:
    """Negative control: without any one token, the notes are others."""
    notes = [TimedNote(0, 0, 4, 60, 80), TimedNote(1, 2, 200, 60, 33), TimedNote(0, 4, 6, 60, 80)]
    words = to_events(notes).split()
    assert " ".join(words) == ("on60 t2 p1 v33 on60 t2 p0 off60 v80 on60 t2 off60 t96 t96 t2 p1 off60")
    same = [i for i in range(len(words)) if to_notes(" ".join(words[:i] + words[i + 1 :])) == sorted(notes)]
    assert [words[i] for i in same] == ["off60", "p1", "off60"], "all notes end with the text, and one is begun again"


@pytest.mark.parametrize("seed", range(3))
def test_midi_files_come_back(seed, tmp_path) -> None:
    """Every message of the notes, by the library's own reader; the voices of a grid lose some: the negative control."""
    pytest.importorskip("mido")
    notes = [note for note in music(seed) if note.part != 4]
    write_notes(tmp_path / "a.mid", notes, GRID, 120)
    again = read_notes(tmp_path / "a.mid", GRID)
    assert again == sorted(notes)
    write_notes(tmp_path / "b.mid", to_notes(to_events(again)), GRID, 120)
    assert heard(tmp_path / "a.mid") == heard(tmp_path / "b.mid")
    assert len(heard(tmp_path / "a.mid")) == 2 * len(notes)
    frames = read_midi(tmp_path / "a.mid", 4, GRID)
    assert int((frames >= 0).sum()) < sum(n.end - n.begin for n in notes if n.part != DRUMS)
    coarse = read_notes(tmp_path / "a.mid", 5)
    assert len(coarse) < len(notes), "notes that are shorter than half a step of another grid are lost"


def test_a_file_of_another_program_is_read(tmp_path) -> None:
    mido = pytest.importorskip("mido")
    file = mido.MidiFile(ticks_per_beat=96)
    for channel in (3, 3):  # two tracks on one channel are two parts
        track = mido.MidiTrack()
        track.append(mido.Message("program_change", program=4, channel=channel))
        for time, velocity in ((0, 64), (24, 65), (24, 0)):  # begins again while it sounds, then off by velocity 0
            track.append(mido.Message("note_on", note=60, velocity=velocity, time=time, channel=channel))
        file.tracks.append(track)
    drums = mido.MidiTrack([mido.Message("note_on", note=35, velocity=9, channel=9)])
    drums.append(mido.Message("note_off", note=35, time=96, channel=9))
    file.tracks.append(drums)
    file.save(tmp_path / "a.mid")
    want = [TimedNote(p, b, e, 60, v) for p in (0, 1) for b, e, v in ((0, 24, 64), (24, 48, 65))]
    assert read_notes(tmp_path / "a.mid", 96) == [*want, TimedNote(DRUMS, 0, 96, 35, 9)]
    (tmp_path / "bad.mid").write_bytes(b"MThd nothing")
    with pytest.raises(DataError, match=r"bad\.mid: not a MIDI file"):
        read_notes(tmp_path / "bad.mid", 96)
    many = mido.MidiFile()
    for _ in range(PARTS):
        many.tracks.append(mido.MidiTrack([mido.Message("note_on", note=60)]))
    many.save(tmp_path / "many.mid")
    with pytest.raises(DataError, match="16 parts, more than 15"):
        read_notes(tmp_path / "many.mid", 96)


def test_every_text_has_a_meaning() -> None:
    """Also what an untrained model writes; the notes of it are valid, and come back."""
    r = random.Random(0)
    for _ in range(20):
        text = " ".join(r.choice(Event().words) for _ in range(400))
        notes = to_notes(text)
        assert to_notes(to_events(notes)) == notes
    assert to_notes("off60 on60 on60 t5 on60") == [TimedNote(0, 0, 5, 60)]
    for wrong in ("on128", "t0", "t97", "v0", "p16", "on", "la"):
        with pytest.raises(DataError, match="not an event"):
            to_notes(wrong)
    for notes in ([(0, 0, 0, 60, 80)], [(0, 0, 4, 60, 80), (0, 3, 6, 60, 80)], [(16, 0, 1, 60, 80)]):
        with pytest.raises(DataError, match="out of range"):
            to_events([TimedNote(*note) for note in notes])
    assert loads(dumps(Event())).vocab_size == Event().vocab_size == 128 + 128 + 96 + 127 + 16 + 1
    with pytest.raises(DataError, match="Damaged tokenizer"):
        loads('{"name": "event", "state": 3}')


def test_transpositions() -> None:
    notes = [TimedNote(0, 0, 1, 120), TimedNote(DRUMS, 0, 1, 125)]
    assert transposed(notes, 7) == [TimedNote(0, 0, 1, 127), TimedNote(DRUMS, 0, 1, 125)]
    assert transposed(notes, 8) is None
    assert transposed(transposed(notes, -5), 5) == notes


def test_a_folder_is_learned_and_written(tmp_path, cli) -> None:
    pytest.importorskip("mido")
    for number in range(6):
        notes = [TimedNote(0, i * 6, i * 6 + 5, 50 + (i + number) % 12, 80) for i in range(40)]
        write_notes(tmp_path / "songs" / f"{number}.mid", notes, GRID, 120)
    words = ["data=midi_events", f"data.path={tmp_path / 'songs'}", "data.context=32", "data.batch_size=4"]
    small = ["model.backbone.d_model=16", "model.backbone.n_layers=1", "model.backbone.n_heads=1"]
    steps = ["trainer.max_steps=2", "trainer.val_check_interval=2", "trainer.accelerator=cpu"]
    told = cli("model=gpt", *words, *small, *steps, f"hydra.run.dir={tmp_path / 'run'}")
    assert told.code == 0, told.err
    for suffix in ("mid", "wav", "png", "txt"):
        told = cli("sample", "run", "--prompt", "on60 t24 off60 on64 t24", "--out", f"a.{suffix}", entry=main)
        assert told.code == 0, told.err
        assert (tmp_path / f"a.{suffix}").stat().st_size > 0
    assert (tmp_path / "a.txt").read_text().startswith("on60 t24 off60 on64 t24")
    assert TimedNote(0, 0, 24, 60) in read_notes(tmp_path / "a.mid", GRID)
    told = cli("sample", "run", "--prompt", "sC5", entry=main)
    assert told.code == 1
    assert "not an event" in told.err


def test_chorales_are_read(tmp_path) -> None:
    """The file is that of `chorales`: here one with a held note."""
    import json

    piece = [[72, 64, 55, 48]] * 2 + [[72, 65, 55, -1]] + [[72, 65, 55, 48]]
    (tmp_path / "jsb-chorales-16th.json").write_text(json.dumps({n: [piece] * 3 for n in ("train", "valid", "test")}))
    data = zoo.create_data("chorale_events", path=str(tmp_path), context=8, batch_size=2, transpose=1)
    train, val, _ = data.splits
    assert len(train) == 9
    assert len(val) == 3
    assert to_notes(val[0]) == [TimedNote(v, b, e, p) for v, b, e, p in (
        (0, 0, 2, 72), (0, 3, 4, 72), (1, 0, 2, 64), (1, 3, 4, 65), (2, 0, 2, 55), (2, 3, 4, 55), (3, 0, 2, 48),
        (3, 3, 4, 48))]  # fmt: skip
    assert data.spec.x.steps_per_beat == 4
