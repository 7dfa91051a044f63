"""Incremental detokenisation: whole characters, stop sequences and finish reasons."""

from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Literal

from zoo.core.errors import ZooError

FinishReason = Literal["eos", "stop", "length"]


@dataclass
class Completion:
    """The text generated after one prompt.

    Args:
        text: without the stop sequence.
        tokens: those that lie wholly within the text, without the end-of-text token.
        finish_reason: "eos" (end-of-text token), "stop" (a stop sequence) or "length" (the limit).
        log_prob: nats of the tokens under the model without temperature or truncation; for "eos" including the end
            token.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    log_prob: float = 0.0


class TextStreamer:
    """Converts tokens to text incrementally, and detects the end.

    A stop sequence is found inside a token or across several; the one completed first counts. Text returned by `push`
    is final: whole characters that cannot be part of a stop sequence.

    Args:
        pieces: bytes of every token.
        end: the end-of-text token, several of them, or None.
        stop: stop sequences.
        limit: maximum number of tokens, or None.
        stop_tokens: tokens that stop a text like a stop sequence.

    Raises:
        ZooError: `stop` is a string or has an empty one.
    """

    def __init__(
        self,
        pieces: Sequence[bytes],
        end: int | Collection[int] | None,
        stop: Sequence[str],
        limit: int | None,
        stop_tokens: Collection[int] = (),
    ) -> None:
        if isinstance(stop, str) or not all(stop):
            raise ZooError(f"stop={stop!r}: must be a list of non-empty strings. Leave out empty ones.")
        self.pieces, self.limit, self.stop_tokens = pieces, limit, stop_tokens
        self.ends: Collection[int] = (end,) if isinstance(end, int) else end or ()
        self.stop = [s.encode("utf-8", errors="replace") for s in stop]
        self.tokens: list[int] = []
        self.log_probs: list[float] = []
        self.buffer, self.emitted = bytearray(), 0
        self.finish_reason: FinishReason | None = None
        if limit is not None and limit <= 0:
            self.finish_reason = "length"

    def push(self, token: int, log_prob: float = 0.0) -> str:
        """Add one token; return the text that has become final."""
        self.log_probs.append(log_prob)
        if token in self.ends or token in self.stop_tokens:
            self.finish_reason = "eos" if token in self.ends else "stop"
            return self._emit(len(self.buffer))
        self.tokens.append(token)
        begin = len(self.buffer)
        self.buffer += self.pieces[token]
        if (cut := self._find_stop(begin)) is not None:
            self.finish_reason = "stop"
            del self.buffer[cut:]
            return self._emit(len(self.buffer))
        if self.limit is not None and len(self.tokens) >= self.limit:
            self.finish_reason = "length"
            return self._emit(len(self.buffer))
        return self._emit(len(self.buffer) - self._held_back())

    def fork(self) -> "TextStreamer":
        """Return an independent copy."""
        twin = copy(self)
        twin.tokens, twin.log_probs, twin.buffer = self.tokens[:], self.log_probs[:], self.buffer[:]
        return twin

    def _find_stop(self, begin: int) -> int | None:
        """Offset of the first stop sequence completed at or after `begin`, or None."""
        ends = []
        for stop in self.stop:
            at = self.buffer.find(stop, max(begin - len(stop) + 1, self.emitted))
            if at >= 0:
                ends.append((at + len(stop), at))
        return min(ends)[1] if ends else None

    def _held_back(self) -> int:
        """Number of bytes at the end that may start a stop sequence or an unfinished character."""
        tail = bytes(self.buffer[self.emitted :])
        longest = 0
        for stop in self.stop:
            for size in range(min(len(stop) - 1, len(tail)), longest, -1):
                if stop.startswith(tail[-size:]):
                    longest = size
                    break
        final = tail[: len(tail) - longest]
        for size in range(1, min(3, len(final)) + 1):  # a character has at most 3 bytes after its first
            if final[-size] >= 0xC0:
                needs = 2 + (final[-size] >= 0xE0) + (final[-size] >= 0xF0)
                return longest + (size if size < needs else 0)
            if final[-size] < 0x80:
                break
        return longest

    def _emit(self, end: int) -> str:
        text = bytes(self.buffer[self.emitted : end]).decode("utf-8", errors="replace")
        self.emitted = end
        return text

    def result(self) -> Completion:
        """Return the completion so far."""
        n_kept, size = 0, 0
        for token in self.tokens:
            size += len(self.pieces[token])
            if size > len(self.buffer):
                break
            n_kept += 1
        n_scored = len(self.log_probs) if self.finish_reason == "eos" else n_kept
        text = self.buffer.decode("utf-8", errors="replace")
        return Completion(text, self.tokens[:n_kept], self.finish_reason, sum(self.log_probs[:n_scored]))


def text_streamers(
    lengths: Sequence[int],
    context: int,
    pieces: Sequence[bytes],
    end: int | Collection[int] | None,
    stop: Sequence[str],
    limit: int | None,
    stop_tokens: Collection[int] = (),
) -> list[TextStreamer]:
    """Create one streamer per prompt length; without a limit, each may fill the context. See `TextStreamer`.

    Raises:
        ZooError: no limit, and a prompt that fills the context; or a negative limit.
    """
    if limit is not None and limit < 0:
        raise ZooError(f"max_new_tokens={limit}: must be at least 0. Choose another, or leave it out.")
    if limit is None and (longest := max(lengths, default=0)) >= context:
        raise ZooError(
            f"prompt of {longest} tokens: it fills the context of {context}. Shorten it, or set max_new_tokens to "
            "continue from the last half context."
        )
    limits = [context - n if limit is None else limit for n in lengths]
    return [TextStreamer(pieces, end, stop, most, stop_tokens) for most in limits]
