"""Standard MIDI files: pitches of voices over time, in and out, by `mido`."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import ConfigError, DataError
from zoo.data.music.note import REST
from zoo.io.atomic import atomic_replace

TICKS = 480  # per beat, at most, of files that are written; more where a beat has more steps
CHANNELS = [channel for channel in range(16) if channel != 9]  # 9 is for drums
VELOCITY = 80
MAX_BEATS = 100_000
Notes = list[tuple[int, int, int, int]]  # of each note: track, begin and end in steps, pitch


def mido() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import mido
    except ImportError:
        raise ConfigError("mido: not installed, and MIDI files need it. pip install 'generative-zoo[music]'.") from None
    return mido


def held_notes(frames: Tensor) -> Notes:
    """Notes of pitches over time (S, V): equal pitches in a row are one note. The track is the voice."""
    notes: Notes = []
    for voice, pitches in enumerate(frames.T.tolist()):
        begin = 0
        for step in range(1, len(pitches) + 1):
            if step == len(pitches) or pitches[step] != pitches[begin]:
                if pitches[begin] >= 0:
                    notes.append((voice, begin, step, pitches[begin]))
                begin = step
    return notes


def write_midi(path: Path, frames: Tensor, steps_per_beat: int, tempo: int) -> None:
    """Write pitches over time (S, V), a track for each voice.

    Args:
        path: the file.
        frames: MIDI pitches, negative for rests.
        steps_per_beat: of the grid.
        tempo: beats per minute.

    Raises:
        ConfigError: mido is not installed.
    """
    library = mido()
    notes, scale = held_notes(frames), max(TICKS // steps_per_beat, 1)  # ticks of a step
    file = library.MidiFile(ticks_per_beat=scale * steps_per_beat)
    for voice in range(frames.shape[1]):
        track = library.MidiTrack()
        if voice == 0:
            track.append(library.MetaMessage("set_tempo", tempo=library.bpm2tempo(tempo)))
        now, events = 0, []
        for number, begin, end, pitch in notes:
            if number == voice:
                events += [(begin, "note_on", pitch), (end, "note_off", pitch)]
        for step, kind, pitch in events:
            time, channel = (step - now) * scale, CHANNELS[voice % len(CHANNELS)]
            track.append(library.Message(kind, note=pitch, velocity=VELOCITY, time=time, channel=channel))
            now = step
        track.append(library.MetaMessage("end_of_track", time=(len(frames) - now) * scale))
        file.tracks.append(track)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replace(path) as draft:
        file.save(str(draft))


def read_midi(path: Path, voices: int, steps_per_beat: int) -> Tensor:
    """Read the pitches of voices over time, whole beats of them: int64 (S, V).

    Begins and ends of notes are rounded to the grid; drums are left out. If the file has as many tracks (or channels of
    a single track) with notes as `voices`, each is a voice. The one with the highest mean pitch is the first. Of
    a voice's notes at the same time, the highest sounds. Otherwise the highest notes that sound in a step are the
    voices, from the first one on.

    Args:
        path: the file.
        voices: number of voices.
        steps_per_beat: of the grid.

    Raises:
        ConfigError: mido is not installed.
        DataError: not a MIDI file.
    """
    library = mido()
    try:
        file = library.MidiFile(path)
        if file.ticks_per_beat <= 0:
            raise ValueError("Its time is not in beats.")
        notes = _notes(file, steps_per_beat)
    except (OSError, EOFError, ValueError, LookupError, library.KeySignatureError) as error:
        reason = str(error).rstrip(".") or "it ends early"
        raise DataError(f"{path}: not a MIDI file ({reason}). Remove or replace it.") from None
    if file.type > 1:
        raise DataError(f"{path}: MIDI of type {file.type}; 0 and 1 have simultaneous tracks. Remove or convert it.")
    length = max((end for _, _, end, _ in notes), default=0)
    length = -(-length // steps_per_beat) * steps_per_beat
    if length > MAX_BEATS * steps_per_beat:
        raise DataError(f"{path}: {length // steps_per_beat:,} beats, more than {MAX_BEATS:,}. Cut it.")
    parts = sorted({part for part, *_ in notes})
    if len(parts) == voices:
        mean = {p: sum(n[3] for n in notes if n[0] == p) / sum(n[0] == p for n in notes) for p in parts}
        order = {part: place for place, part in enumerate(sorted(parts, key=lambda p: -mean[p]))}
        frames = torch.full((length, voices), REST)
        for part, begin, end, pitch in notes:
            column = frames[begin:end, order[part]]
            column.clamp_(min=pitch)
        return frames
    sounding = torch.zeros(length, 128, dtype=torch.bool)
    for _, begin, end, pitch in notes:
        sounding[begin:end, pitch] = True
    pitches = torch.where(sounding, torch.arange(128), REST)
    return pitches.topk(voices, dim=1).values


def _notes(file: Any, steps_per_beat: int) -> Notes:
    """Notes on the grid. The parts are the tracks, or the channels of a file with a single track of notes."""
    found = list[tuple[int, int, int, int, int]]()  # track, channel, begin, end, pitch
    for number, track in enumerate(file.tracks):
        now, sounding = 0, dict[tuple[int, int], int]()
        for message in track:
            now += message.time
            if message.type not in ("note_on", "note_off") or message.channel == 9:
                continue
            key, step = (message.channel, message.note), round(now * steps_per_beat / file.ticks_per_beat)
            if (begin := sounding.pop(key, None)) is not None and step > begin:
                found.append((number, message.channel, begin, step, message.note))
            if message.type == "note_on" and message.velocity > 0:
                sounding[key] = step
    single = len({number for number, *_ in found}) == 1
    return [(channel if single else number, *rest) for number, channel, *rest in found]  # type: ignore[misc]
