"""Tokens into text as they come: whole characters, stop sequences, and why a text ended."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Literal

from zoo.core.errors import ZooError

FinishReason = Literal["eos", "stop", "length"]


@dataclass
class Completion:
    """What was written after one prompt.

    Args:
        text: without the stop sequence.
        tokens: those that lie wholly within the text, without the end of text.
        finish_reason: "eos" (the model ended the text), "stop" (a stop sequence) or "length" (the limit).
        log_prob: nats that the model gives to the tokens, before any warping; with that of the end of text for "eos".
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    log_prob: float = 0.0


class TextStreamer:
    """Turns tokens into text as they come, and knows when it is over.

    A stop sequence is found wherever it falls, inside a token or across several; of several the one that is
    complete first counts. What `push` returns is final: whole characters, and nothing that may turn out to
    begin a stop sequence.

    Args:
        pieces: the bytes of every token.
        end: the end-of-text token, or None.
        stop: stop sequences.
        limit: most tokens.
    """

    def __init__(self, pieces: Sequence[bytes], end: int | None, stop: Sequence[str], limit: int | None) -> None:
        if isinstance(stop, str) or not all(stop):
            raise ZooError("stop must be a list of non-empty strings.")
        self.pieces, self.end, self.limit = pieces, end, limit
        self.stop = [s.encode("utf-8", errors="replace") for s in stop]
        self.tokens: list[int] = []
        self.log_probs: list[float] = []
        self.raw, self.released = bytearray(), 0
        self.finish: FinishReason | None = None
        if limit is not None and limit <= 0:
            self.finish = "length"

    def push(self, token: int, log_prob: float = 0.0) -> str:
        """One more token: the text that has become certain."""
        self.log_probs.append(log_prob)
        if token == self.end:
            self.finish = "eos"
            return self._release(len(self.raw))
        self.tokens.append(token)
        begin = len(self.raw)
        self.raw += self.pieces[token]
        if (cut := self._match(begin)) is not None:
            self.finish = "stop"
            del self.raw[cut:]
            return self._release(len(self.raw))
        if self.limit is not None and len(self.tokens) >= self.limit:
            self.finish = "length"
            return self._release(len(self.raw))
        return self._release(len(self.raw) - self._undecided())

    def fork(self) -> "TextStreamer":
        """An independent copy."""
        twin = copy(self)
        twin.tokens, twin.log_probs, twin.raw = self.tokens[:], self.log_probs[:], self.raw[:]
        return twin

    def _match(self, begin: int) -> int | None:
        """Where the first completed stop sequence begins, if one is completed at or after `begin`."""
        ends = []
        for stop in self.stop:
            at = self.raw.find(stop, max(begin - len(stop) + 1, self.released))
            if at >= 0:
                ends.append((at + len(stop), at))
        return min(ends)[1] if ends else None

    def _undecided(self) -> int:
        """How many bytes at the end may begin a stop sequence or an unfinished character."""
        tail = bytes(self.raw[self.released :])
        longest = 0
        for stop in self.stop:
            for size in range(min(len(stop) - 1, len(tail)), longest, -1):
                if stop.startswith(tail[-size:]):
                    longest = size
                    break
        sure = tail[: len(tail) - longest]
        for size in range(1, min(3, len(sure)) + 1):  # a character has at most 3 bytes after its first
            if sure[-size] >= 0xC0:
                needs = 2 + (sure[-size] >= 0xE0) + (sure[-size] >= 0xF0)
                return longest + (size if size < needs else 0)
            if sure[-size] < 0x80:
                break
        return longest

    def _release(self, end: int) -> str:
        text = bytes(self.raw[self.released : end]).decode("utf-8", errors="replace")
        self.released = end
        return text

    def result(self) -> Completion:
        """Everything so far."""
        kept, size = 0, 0
        for token in self.tokens:
            size += len(self.pieces[token])
            if size > len(self.raw):
                break
            kept += 1
        scored = len(self.log_probs) if self.finish == "eos" else kept
        text = self.raw.decode("utf-8", errors="replace")
        return Completion(text, self.tokens[:kept], self.finish, sum(self.log_probs[:scored]))


def text_streamers(
    lengths: Sequence[int],
    context: int,
    pieces: Sequence[bytes],
    end: int | None,
    stop: Sequence[str],
    limit: int | None,
) -> list[TextStreamer]:
    """One writer per prompt of so many tokens; without a limit each may fill the context.

    Raises:
        ZooError: no limit, and a prompt that fills the context already.
    """
    if limit is None and (longest := max(lengths, default=0)) >= context:
        raise ZooError(
            f"a prompt of {longest} tokens fills the context of {context}: give max_new_tokens, which lets the "
            f"model go on from its last half context, or a shorter prompt."
        )
    return [TextStreamer(pieces, end, stop, context - n if limit is None else limit) for n in lengths]
