"""Notes of standard MIDI files, of any number at a time, in and out, by `mido`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.core.counted import counted
from zoo.core.errors import DataError
from zoo.data.music.event import DRUMS, PARTS, TimedNote
from zoo.data.music.midi_file import MAX_BEATS, mido
from zoo.io.atomic import atomic_replace

TONES = [part for part in range(PARTS) if part != DRUMS]


def read_notes(path: Path, steps_per_beat: int) -> list[TimedNote]:
    """Notes of a MIDI file, sorted.

    Begins and ends are rounded to the grid; they are exact if its steps divide a beat as finely as the file's ticks do.
    Each channel of each track is a part, in the order of the file; drums are part 9. A pitch that begins again while it
    sounds ends first. Notes of no duration are left out, and so are tempo, instruments, pedals and bends.

    Raises:
        ConfigError: mido is not installed.
        DataError: not a MIDI file, or one with too many parts.
    """
    library = mido()
    try:
        file = library.MidiFile(path)
        if file.ticks_per_beat <= 0:
            raise ValueError("Its time is not in beats.")
        messages = _messages(file)
    except (OSError, EOFError, ValueError, LookupError, library.KeySignatureError) as error:
        reason = str(error).rstrip(".") or "it ends early"
        raise DataError(f"{path}: not a MIDI file ({reason}). Remove or replace it.") from None
    if file.type > 1:
        raise DataError(f"{path}: MIDI of type {file.type}; 0 and 1 have simultaneous tracks. Remove or convert it.")
    if messages and messages[-1][0] > MAX_BEATS * file.ticks_per_beat:
        raise DataError(f"{path}: more than {MAX_BEATS:,} beats. Cut it.")
    places = list(dict.fromkeys((track, m.channel) for _, track, m in messages if m.channel != DRUMS))
    if len(places) > len(TONES):
        raise DataError(f"{path}: {counted(len(places), 'part')}, more than {len(TONES)}. Remove some.")
    parts = dict(zip(places, TONES, strict=False))
    notes, sounding = list[TimedNote](), dict[tuple[int, int], tuple[int, int]]()
    for time, track, message in messages:
        part, pitch = parts.get((track, message.channel), DRUMS), message.note
        step = round(time * steps_per_beat / file.ticks_per_beat)
        begun = sounding.pop((part, pitch), None)
        if begun is not None and step > begun[0]:
            notes.append(TimedNote(part, begun[0], step, pitch, begun[1]))
        if message.type == "note_on" and message.velocity > 0:
            sounding[part, pitch] = step, message.velocity
    return sorted(notes)


def _messages(file: Any) -> list[tuple[int, int, Any]]:
    """Begins and ends of notes by time in ticks, with the track; drums of all tracks are one part."""
    found = list[tuple[int, int, Any]]()
    for number, track in enumerate(file.tracks):
        now = 0
        for message in track:
            now += message.time
            if message.type in ("note_on", "note_off"):
                found.append((now, number, message))
    return sorted(found, key=lambda item: item[0])


def write_notes(path: Path, notes: Iterable[TimedNote], steps_per_beat: int, tempo: int) -> None:
    """Write notes, a track for each part. A tick is a step.

    Args:
        path: the file.
        notes: in any order.
        steps_per_beat: of the grid.
        tempo: beats per minute.

    Raises:
        ConfigError: mido is not installed.
    """
    library = mido()
    file = library.MidiFile(ticks_per_beat=steps_per_beat)
    head = library.MidiTrack([library.MetaMessage("set_tempo", tempo=library.bpm2tempo(tempo))])
    file.tracks.append(head)
    every = sorted(notes)
    for part in sorted({note.part for note in every}):
        events = list[tuple[int, bool, int, int]]()  # ends are before beginnings
        for note in every:
            if note.part == part:
                events += [(note.begin, True, note.pitch, note.velocity), (note.end, False, note.pitch, 0)]
        track, now = library.MidiTrack(), 0
        for step, begins, pitch, velocity in sorted(events):
            kind = "note_on" if begins else "note_off"
            track.append(library.Message(kind, note=pitch, velocity=velocity, time=step - now, channel=part))
            now = step
        file.tracks.append(track)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replace(path) as draft:
        file.save(str(draft))
