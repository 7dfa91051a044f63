"""Music as piano rolls, sound and MIDI files."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import NoteEvents, Voices
from zoo.data.audio.synthesizer import mix
from zoo.data.music.event import DRUMS, Event, TimedNote, to_notes
from zoo.data.music.midi_file import Notes, held_notes, write_midi
from zoo.data.music.midi_notes import write_notes
from zoo.data.music.note import REST, pitch_name, to_frames
from zoo.viz import images
from zoo.viz.render import Renderer
from zoo.viz.sound import Sound, joined

RATE = 22_050  # samples per second
STEP, KEY = 6, 5  # pixels of a step across, and of a semitone upwards
MARGIN = 34  # pixels of the names of octaves
COLOURS = ((198, 40, 40), (239, 140, 0), (46, 125, 50), (21, 101, 192))  # of the voices, the highest first
PAPER, BLACK_KEY, BEAT, BAR = (255, 255, 255), (240, 240, 240), (224, 224, 224), (170, 170, 170)
PAUSE = 2  # beats between pieces in a file


@register("renderer", "voices")
class VoicesRenderer(Renderer):
    """Piano rolls, a colour for each voice."""

    n_samples, per_page, has_singles = 4, 16, True
    formats = (".wav", ".mid")

    space: Voices

    def frames(self, x: Tensor) -> list[Tensor]:
        """Tokens (B, T) as pitches over time, each (S, V)."""
        return [to_frames(row, self.space.voices) for row in x.cpu()]

    def single(self, x: Tensor) -> images.Picture:
        """The roll of one piece (T,)."""
        return roll(self.frames(x[None])[0], self.space.steps_per_beat)

    def render(self, x: Tensor, columns: int | None = None) -> images.Picture:
        """Rolls below each other."""
        return stacked([roll(piece, self.space.steps_per_beat) for piece in self.frames(x)])

    def sound(self, x: Tensor) -> Sound:
        """The pieces (B, T), one after another, by an additive synthesiser."""
        seconds = 60 / self.space.tempo / self.space.steps_per_beat
        waves = []
        for piece in self.frames(x):
            notes = [(begin * seconds, (end - begin) * seconds, pitch) for _, begin, end, pitch in held_notes(piece)]
            waves.append(mix(notes, RATE, max(len(piece), 1) * seconds)[None])
        return joined(waves, RATE)

    def write(self, x: Tensor, path: Path) -> None:
        """Write a MIDI file of the pieces (B, T), one after another."""
        rest = torch.full((PAUSE * self.space.steps_per_beat, self.space.voices), REST)
        pieces = [part for piece in self.frames(x) for part in (piece, rest)][:-1]
        write_midi(path, torch.cat(pieces), self.space.steps_per_beat, self.space.tempo)


@register("renderer", "note_events")
class NoteEventsRenderer(Renderer):
    """Piano rolls, a colour for each part."""

    n_samples, per_page, has_singles = 4, 16, True
    formats = (".wav", ".mid")

    space: NoteEvents

    def notes(self, x: Tensor) -> list[list[TimedNote]]:
        """Notes of tokens (B, T), each up to its first token that is not an event."""
        return [notes_of(row) for row in x.cpu()]

    def single(self, x: Tensor) -> images.Picture:
        """The roll of one piece (T,)."""
        found, beat = self.notes(x[None])[0], self.space.steps_per_beat
        drawn = [(note.part, note.begin, note.end, note.pitch) for note in found]
        return roll_of_notes(drawn, last_end(found), beat, width=4 * STEP / beat)

    def render(self, x: Tensor, columns: int | None = None) -> images.Picture:
        """Rolls below each other."""
        return stacked([self.single(row) for row in x])

    def sound(self, x: Tensor) -> Sound:
        """The pieces (B, T), one after another, by an additive synthesiser, without drums."""
        seconds = 60 / self.space.tempo / self.space.steps_per_beat
        waves = []
        for piece in self.notes(x):
            heard = [(n.begin * seconds, (n.end - n.begin) * seconds, n.pitch) for n in piece if n.part != DRUMS]
            waves.append(mix(heard, RATE, max(last_end(piece), 1) * seconds)[None])
        return joined(waves, RATE)

    def write(self, x: Tensor, path: Path) -> None:
        """Write a MIDI file of the pieces (B, T), one after another."""
        start, every = 0, list[TimedNote]()
        for piece in self.notes(x):
            every += [note._replace(begin=note.begin + start, end=note.end + start) for note in piece]
            start += last_end(piece) + PAUSE * self.space.steps_per_beat
        write_notes(path, every, self.space.steps_per_beat, self.space.tempo)


def notes_of(tokens: Tensor) -> list[TimedNote]:
    """Notes of tokens (T,), up to the first one that is not an event."""
    tokenizer = Event()
    ends = ((tokens < 0) | (tokens >= tokenizer.end)).nonzero()
    return to_notes(tokenizer.decode(tokens[: int(ends[0]) if len(ends) else None].tolist()))


def last_end(notes: list[TimedNote]) -> int:
    """Steps until the last note ends."""
    return max((note.end for note in notes), default=0)


def stacked(rolls: list[images.Picture]) -> images.Picture:
    """Pictures below each other, from the left."""
    high, wide = max(r.shape[0] for r in rolls), max(r.shape[1] for r in rolls)
    drawn = [np.pad(r, ((0, high - len(r)), (0, wide - r.shape[1]), (0, 0)), constant_values=255) for r in rolls]
    gap = np.full((images.GAP, wide, 3), images.BACKGROUND, np.uint8)
    return np.concatenate([part for r in drawn for part in (r, gap)][:-1])


def roll(frames: Tensor, steps_per_beat: int) -> images.Picture:
    """Piano roll of pitches over time (S, V), see `roll_of_notes`."""
    return roll_of_notes(held_notes(frames), len(frames), steps_per_beat)


def roll_of_notes(notes: Notes, length: int, steps_per_beat: int, width: float = STEP) -> images.Picture:
    """Piano roll of notes: time across, pitch upwards, a darker line every four beats.

    Args:
        notes: voice, begin and end in steps, and pitch of each.
        length: steps.
        steps_per_beat: of the grid.
        width: pixels of a step.
    """
    pitches = [pitch for *_, pitch in notes]
    low, high = (min(pitches) - 2, max(pitches) + 3) if pitches else (55, 66)
    picture = Image.new("RGB", (MARGIN + math.ceil(width * max(length, 1)) + 1, KEY * (high - low) + 1), PAPER)
    draw = ImageDraw.Draw(picture)
    right, top = picture.width - 1, lambda pitch: KEY * (high - 1 - pitch)
    for pitch in range(low, high):
        if "#" in pitch_name(pitch):
            draw.rectangle((MARGIN, top(pitch), right, top(pitch) + KEY - 1), BLACK_KEY)
        if pitch % 12 == 0:
            draw.text((MARGIN - 4, top(pitch) + KEY // 2), pitch_name(pitch), "black", anchor="rm")
    for step in range(0, length + 1, steps_per_beat):
        bar = step % (4 * steps_per_beat) == 0
        draw.line((MARGIN + width * step, 0, MARGIN + width * step, picture.height), BAR if bar else BEAT)
    for voice, begin, end, pitch in notes:
        left = MARGIN + width * begin + 1
        box = left, top(pitch), max(MARGIN + width * end - 1, left), top(pitch) + KEY - 1
        draw.rectangle(box, COLOURS[voice % len(COLOURS)])
    return np.asarray(picture)
