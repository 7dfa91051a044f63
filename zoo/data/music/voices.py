"""Base class of music in voices: windows of pieces as tokens of notes."""

import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.spaces import ABSENT
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split
from zoo.data.loader import ShuffledSampler, TensorLoader
from zoo.data.music.note import KEYS, REST, SIZE, Note, to_tokens, voices_space

MARKED = -2  # every voice of a step that is read as rests and not scored
Pieces = list[Tensor]  # each int64 (S, V): MIDI pitches, REST or MARKED
Row = tuple[int, int, int, int, int]  # begin and end in the stream, first step, lowest and highest transposition


class VoiceData(DataModule):
    """Windows of pieces in three splits; a subclass provides `read`.

    The notes of a step are in the order of the voices, so a window of S steps has S V tokens. Windows begin on a beat.
    The token before the first note of a piece, and after its last one, is the end token. Held-out windows are adjacent,
    so every note is scored once, and nothing else is: neither ends, nor padding, nor marked steps.

    A training epoch has a window for each stretch of a piece, shifted by a random number of beats, and one more. The
    first begins with the piece, and the last ends with it. Each is transposed at random, within the range of every
    voice in the training pieces. In training the end is scored too, so that samples end.

    Args:
        steps: of a window.
        transpose: largest number of semitones, up or down; 0 is off.
        voices: number of voices.
        steps_per_beat: of the grid.
        tempo: beats per minute, at which samples are played.
        batch_size: windows per batch.
        seed: seed of the order, shifts and transpositions.
    """

    keep_on_gpu = True
    python = False  # see `TokenWindows`

    def __init__(
        self, steps: int, transpose: int, voices: int, steps_per_beat: int, tempo: int, batch_size: int, seed: int
    ) -> None:
        super().__init__(batch_size, seed)
        if steps % steps_per_beat:
            raise DataError(f"data.steps={steps}: not whole beats. Choose a multiple of {steps_per_beat}.")
        self.steps, self.transpose, self.voices, self.steps_per_beat = steps, transpose, voices, steps_per_beat
        self.tokenizer, self.tempo = Note(voices=voices), tempo

    @property
    def spec(self) -> DataSpec:
        """Voices over the steps of a window; it does not read the music."""
        space = voices_space(self.steps, self.voices, self.steps_per_beat, self.tempo)
        return DataSpec(space, name=self.registered_name)

    def read(self) -> tuple[Pieces, Pieces, Pieces]:
        """Read the training, validation and test pieces."""
        raise NotImplementedError

    def load(self) -> None:
        """Make the tokens of each split.

        Raises:
            DataError: a split without music.
        """
        self.pieces = self.read()
        for name, part in zip(("training", "validation", "test"), self.pieces, strict=True):
            if not any(bool((piece >= 0).any()) for piece in part):
                raise DataError(f"data={self.registered_name}: the {name} pieces have no notes. Give more music.")
        lows, highs = voice_ranges(self.pieces[0])
        splits = []
        for number, part in enumerate(self.pieces):
            rows, stream = list[Row](), [self.tokenizer.end]
            for piece in part:
                begin = len(stream) - 1
                stream += [*stored(piece).tolist(), self.tokenizer.end]
                down, up = room(piece, lows, highs, self.transpose)
                count = -(-len(piece) // self.steps) + (number == 0 and len(piece) >= self.steps)
                rows += [(begin, len(stream) - 1, i * self.steps, down, up) for i in range(count)]
            splits.append((torch.tensor(rows), torch.tensor(stream, dtype=torch.int32)))
        self.train, self.val, self.test = splits

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Cut windows x int64 (B, S V), and the next tokens y (B, S V)."""
        rows, stream = (self.on_device(indices, part) for part in split)
        begin, end, step, down, up = rows[indices].T
        shift = torch.zeros_like(begin)
        if train:
            uniform = torch.rand(2, len(indices), generator=generator, dtype=torch.float64).to(begin.device)
            beat = self.steps_per_beat
            back = (uniform[0] * (self.steps // beat)).long() * beat
            last = (((end - begin - 1) // self.voices - self.steps) // beat + 1) * beat  # a beat remains for the end
            step = torch.minimum(step - back, last).clamp(min=0)
            shift = down + (uniform[1] * (up - down + 1)).long()
        places = (begin + step * self.voices)[:, None] + torch.arange(self.steps * self.voices + 1, device=begin.device)
        inside = places <= end[:, None]
        found = stream[torch.minimum(places, end[:, None])].long()
        tokens = torch.where(found < 0, -1 - found, found)
        moved = (tokens < self.tokenizer.end) & (tokens % SIZE < KEYS)
        tokens = torch.where(moved, tokens + shift[:, None], tokens)
        scored = inside & (found >= 0) & ((tokens != self.tokenizer.end) | train)
        return tokens[:, :-1], tokens[:, 1:].masked_fill(~scored[:, 1:], ABSENT)

    def fitting_dataloader(self) -> TensorLoader:
        """The training pieces once, in adjacent windows like held-out data, not transposed."""
        rows, stream = self.train
        length = (rows[:, 1] - rows[:, 0] - 1) // self.voices
        rows = rows[rows[:, 2] < length]  # without the additional window of each piece
        return self._loader((rows, stream), ShuffledSampler(len(rows)), train=False)

    def sample_texts(self, split: str, n: int, length: int) -> list[str]:
        """The first `length` notes of n evenly spaced pieces in their notation; again if there are fewer."""
        part = self.pieces[("train", "val", "test").index(split)]
        chosen = torch.linspace(0, len(part) - 1, n).long().tolist()
        return [self.tokenizer.decode(to_tokens(part[i].clamp(min=REST))[:length].tolist()) for i in chosen]


def stored(piece: Tensor) -> Tensor:
    """Tokens of a piece (S V,); those of a marked step are -1 - token."""
    marked = (piece == MARKED).any(1, keepdim=True).expand_as(piece).flatten()
    tokens = to_tokens(piece.clamp(min=REST))
    return torch.where(marked, -1 - tokens, tokens)


def voice_ranges(pieces: Pieces) -> tuple[Tensor, Tensor]:
    """Lowest and highest pitch of each voice, (V,) each."""
    every = torch.cat(pieces)
    lows = torch.where(every >= 0, every, 128).amin(0)
    return lows, every.amax(0)


def room(piece: Tensor, lows: Tensor, highs: Tensor, most: int) -> tuple[int, int]:
    """Lowest and highest transposition (at most 0, at least 0) that leaves every voice in its range."""
    own_lows, own_highs = voice_ranges([piece])
    sounding = own_highs >= 0
    if not bool(sounding.any()):
        return 0, 0
    down = int((lows - own_lows)[sounding].max())
    up = int((highs - own_highs)[sounding].min())
    return max(min(down, 0), -most), min(max(up, 0), most)
