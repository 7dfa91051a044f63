"""Notes as tokens: a bijection between music, tokens and notation."""

import pytest
import torch

from zoo.core.errors import DataError
from zoo.data.music.note import KEYS, LOWEST, REST, SIZE, Note, pitch_name, to_frames, to_tokens
from zoo.data.text.tokenizers.base import dumps, loads


def test_names_are_those_of_midi():
    assert [pitch_name(p) for p in (60, 69, 21, 108, 61)] == ["C4", "A4", "A0", "C8", "C#4"]


@pytest.mark.parametrize("voices", [1, 2, 4])
def test_music_tokens_and_notation_are_the_same(voices):
    frames = torch.randint(LOWEST - 1, LOWEST + KEYS, (50, voices), generator=torch.Generator().manual_seed(0))
    frames[frames < LOWEST] = REST
    tokens, note = to_tokens(frames), Note(voices=voices)
    assert torch.equal(to_frames(tokens, voices), frames)
    assert note.encode(note.decode(tokens.tolist())) == tokens.tolist()
    assert note.decode(tokens.tolist()).count("\n") == 50
    assert len(set(note.pieces)) == note.vocab_size == SIZE * voices + 1


def test_a_chord_is_written_by_voices():
    text = Note().decode(to_tokens(torch.tensor([[74, 69, 65, 50], [REST, 69, 65, 50]])).tolist())
    assert text == "sD5 aA4 tF4 bD3\ns- aA4 tF4 bD3\n"


def test_reading_stops_at_the_end_and_at_whole_steps():
    tokens = to_tokens(torch.tensor([[74, 69, 65, 50]] * 3))
    end = torch.tensor([Note().end])
    assert len(to_frames(torch.cat([tokens[:8], end, tokens]), 4)) == 2
    assert len(to_frames(tokens[:7], 4)) == 1
    swapped = to_frames(tokens[[1, 0, 2, 3]], 4)
    assert swapped.tolist() == [[69, 74, 65, 50]], "a token in another voice's place keeps its pitch"


@pytest.mark.parametrize("text", ["D5", "sH5", "xD5", "sC9", "s"])
def test_what_is_not_a_note_is_refused(text):
    with pytest.raises(DataError, match="not a note"):
        Note().encode(text)


def test_pitches_that_a_piano_does_not_have_are_refused():
    with pytest.raises(DataError, match="Transpose"):
        to_tokens(torch.tensor([[109]]))


def test_a_string_holds_the_tokenizer():
    assert loads(dumps(Note(voices=3))).pieces == Note(voices=3).pieces
    for state in ("4", True, 9, 0):
        with pytest.raises(DataError):
            Note.load(state)
