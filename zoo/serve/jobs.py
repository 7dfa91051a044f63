"""Jobs for a model's thread: texts, choice by choice, and their events."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from zoo.nn.samplers.continuous_batch import Drawn, Row, row_streams
from zoo.nn.samplers.text_stream import TextStreamer
from zoo.serve.errors import invalid, timed_out
from zoo.serve.limits import Limits

GRACE = 0.5  # seconds in which a thread reports that the time is over


class Job:
    """Work for a model's thread; events come back through `events`, an exception included.

    Args:
        seconds: until it must be finished.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.deadline = seconds, time.monotonic() + seconds
        self.cancelled = False  # set by the event loop, read by the thread
        self.finished = False
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self._pending: list[Any] = []
        self._failed = False  # the last event is an exception

    async def next_event(self) -> Any:
        """The next event, on the event loop.

        Raises:
            APIError: the time is over.
            Exception: the event is an exception.
        """
        try:
            async with asyncio.timeout(max(0.0, self.deadline - time.monotonic()) + GRACE):
                event = await self.events.get()
        except TimeoutError:
            self.cancelled = True
            raise timed_out(self.seconds) from None
        if isinstance(event, BaseException):
            raise event
        return event

    def ready_events(self) -> list[Any]:
        """Events that have come since, without waiting; an exception stays for `next_event`."""
        found: list[Any] = []
        while not self.events.empty() and not self._failed:
            event = self.events.get_nowait()
            if isinstance(event, BaseException):
                self.events.put_nowait(event)
                self._failed = True
            else:
                found.append(event)
        return found

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.cancelled or self.finished

    @property
    def has_events(self) -> bool:
        """Whether there is something to deliver."""
        return bool(self._pending)

    def report(self, event: Any) -> None:
        """Add an event."""
        self._pending.append(event)

    def finish(self, event: Any) -> None:
        """Add the last event."""
        self.report(event)
        self.finished = True

    def take(self) -> list[Any]:
        """Events since the last call."""
        events, self._pending = self._pending, []
        return events


def put_all(found: list[tuple[Job, list[Any]]]) -> None:
    """Hand events to the tasks that wait for them."""
    for job, events in found:
        for event in events:
            job.events.put_nowait(event)


@dataclass
class TokenInfo:
    """A generated token: its text as bytes, its log-probability in nats, and the likeliest alternatives."""

    piece: bytes
    log_prob: float
    top: list[tuple[bytes, float]] = field(default_factory=list)


@dataclass
class Piece:
    """Text of one choice that has become final."""

    index: int
    text: str
    tokens: list[TokenInfo]
    finish_reason: str | None = None  # that of the zoo: eos, stop, length


def merged(events: list[Any]) -> list[Any]:
    """Events in order, where pieces of one choice are joined: a slow reader gets fewer and longer ones."""
    found: list[Any] = []
    pieces: dict[int, Piece] = {}
    for event in events:
        if not isinstance(event, Piece):
            found.append(event)
        elif (piece := pieces.get(event.index)) is None:
            pieces[event.index] = event
            found.append(event)
        else:
            piece.text += event.text
            piece.tokens += event.tokens
            piece.finish_reason = event.finish_reason
    return found


@dataclass
class Started:
    """The first event of a text job.

    Args:
        prompt_tokens: of all prompts.
        prompts: tokens of each prompt with their log-probabilities, where they were asked for; None for the first.
    """

    prompt_tokens: int
    prompts: list[list[TokenInfo]] = field(default_factory=list)


@dataclass
class Finished:
    """The last event of a text job."""

    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class TextParams:
    """Settings of a generation.

    Args:
        options: of `SamplingParams` that differ from the model's own.
        max_tokens: None fills the context.
        stop: stop sequences.
        n: choices of each prompt.
        seed: None draws one.
        n_top: likeliest tokens to report; None reports no log-probabilities.
        score_prompt: report the log-probabilities of the prompt.
        stream: report each piece, and not all at the end.
    """

    options: dict[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    n: int = 1
    seed: int | None = None
    n_top: int | None = None
    score_prompt: bool = False
    stream: bool = False


class TextJob(Job):
    """Continuations of prompts: n choices of each.

    Args:
        prompts: texts, or token ids.
        params: what to generate.
        limits: of time.
    """

    def __init__(self, prompts: Sequence[str | list[int]], params: TextParams, limits: Limits) -> None:
        super().__init__(limits.seconds)
        self.prompts, self.params = prompts, params
        self.n_rows = len(prompts) * params.n
        self.rows: list[Row] = []
        self.choices: dict[int, Choice] = {}  # by the identity of the row
        self.completion_tokens = 0

    def start(self, model: Any) -> Any:
        """Encode the prompts, and create the rows; returns the decoder.

        Raises:
            APIError: a prompt longer than the context.
            ZooError: options that do not fit the model.
        """
        params = self.params
        ids = [token_ids(model, prompt) for prompt in self.prompts]
        repeated = [row for row in ids for _ in range(params.n)]
        decoder, begun = model.prepare(repeated)
        if (longest := max(map(len, begun))) > decoder.context:
            raise invalid(
                f"prompt of {longest} tokens: the model's context has {decoder.context}. Shorten the prompt.",
                "prompt",
                "context_length_exceeded",
            )
        sampling = model.sampling(params.options)
        streamers = model.streamers(repeated, params.max_tokens, list(params.stop))
        streams = row_streams(self.n_rows, params.seed)
        rows = [Row(row, sampling, stream, n_top=params.n_top or 0) for row, stream in zip(begun, streams, strict=True)]
        pieces = model.tokenizer.pieces
        for index, (row, streamer) in enumerate(zip(rows, streamers, strict=True)):
            self.choices[id(row)] = Choice(index, streamer, pieces, params.n_top is not None)
        self.report(Started(sum(map(len, ids)), score(model, ids, params) if params.score_prompt else []))
        for row in rows:
            choice = self.choices[id(row)]
            if choice.streamer.finish_reason:  # no tokens were asked for
                self.report(Piece(choice.index, "", [], "length"))
            else:
                self.rows.append(row)
        if not self.rows:
            self.finish(Finished(0))
        return decoder

    def push(self, row: Row, drawn: Drawn) -> bool:
        """Add a sampled token; returns whether the row has finished."""
        choice = self.choices[id(row)]
        piece = choice.push(drawn, self.params.stream)
        if piece is not None:
            self.report(piece)
        if choice.streamer.finish_reason is None:
            return False
        self.completion_tokens += len(choice.streamer.tokens)
        self.rows = [other for other in self.rows if other is not row]
        if not self.rows:
            self.finish(Finished(self.completion_tokens))
        return True


class Choice:
    """One text: text and log-probabilities that are final.

    Args:
        index: among the choices of the request.
        streamer: new.
        pieces: bytes of each token.
        scored: report log-probabilities.
    """

    def __init__(self, index: int, streamer: TextStreamer, pieces: Sequence[bytes], scored: bool) -> None:
        self.index, self.streamer, self.pieces, self.scored = index, streamer, pieces, scored
        self.text: list[str] = []
        self.released: list[TokenInfo] = []
        self.held: deque[tuple[int, TokenInfo]] = deque()  # with the byte after each token
        self.size = 0

    def push(self, drawn: Drawn, stream: bool) -> Piece | None:
        """Add a token; returns what has become final, of a stream at once, else at the end."""
        streamer, n = self.streamer, len(self.streamer.tokens)
        self.text.append(streamer.push(drawn.token, drawn.log_prob))
        if self.scored and len(streamer.tokens) > n:
            self.size += len(self.pieces[drawn.token])
            top = [(self.pieces[token], log_prob) for token, log_prob in drawn.top]
            self.held.append((self.size, TokenInfo(self.pieces[drawn.token], drawn.log_prob, top)))
        while self.held and self.held[0][0] <= streamer.emitted:
            self.released.append(self.held.popleft()[1])
        reason = streamer.finish_reason
        if reason is None and not (stream and (self.released or any(self.text))):
            return None
        piece = Piece(self.index, "".join(self.text), self.released, reason)
        self.text, self.released = [], []
        return piece


def token_ids(model: Any, prompt: str | list[int]) -> list[int]:
    """Token ids of a prompt as the model reads it.

    Raises:
        APIError: ids outside the vocabulary, or none.
    """
    if isinstance(prompt, str):
        return list(model.prompt_ids(prompt))
    if not prompt or not all(0 <= token < model.spec.tokens.vocab_size for token in prompt):
        raise invalid(
            f"prompt: token ids must be from 0 to {model.spec.tokens.vocab_size - 1}, and at least one. Correct them.",
            "prompt",
        )
    return prompt


def score(model: Any, ids: list[list[int]], params: TextParams) -> list[list[TokenInfo]]:
    """Tokens of prompts with their log-probabilities; that of the first one is NaN unless a begin token precedes it.

    Raises:
        APIError: a model that reads its prompt as a source.
    """
    if not hasattr(model.net, "prefill"):
        raise invalid("echo: the model translates, and does not score its source. Leave it out.", "echo")
    pieces, found = model.tokenizer.pieces, []
    before = model.tokenizer.affixes[0]
    for row in ids:
        infos = [] if before and row[:1] == before[:1] else [TokenInfo(pieces[row[0]], float("nan"))]
        if len(row) > 1:
            tokens = torch.tensor([row], device=model.device)
            with torch.no_grad():
                log_probs = model.net(tokens[:, :-1])[0].float().log_softmax(-1)  # (T, V)
            chosen = log_probs.gather(1, tokens[0, 1:, None]).squeeze(1).tolist()
            best = [x.tolist() for x in log_probs.topk(min(params.n_top or 0, log_probs.shape[1]))]
            for token, log_prob, values, tops in zip(row[1:], chosen, *best, strict=True):
                top = [(pieces[t], value) for t, value in zip(tops, values, strict=True)]
                infos.append(TokenInfo(pieces[token], log_prob, top))
        found.append(infos)
    return found
