"""`/v1/completions`, and what it shares with chats."""

import codecs
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from zoo.serve.errors import invalid
from zoo.serve.jobs import Finished, Piece, Started, TextParams, TokenInfo
from zoo.serve.openai_types import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
    TextRequest,
    Usage,
)
from zoo.serve.service import Service, Stream, endpoint
from zoo.serve.text import FINISH, Event, generate

LEAST = -9999.0  # log-probability of an impossible token, as in the original


def text_params(body: TextRequest, **others: Any) -> TextParams:
    """Settings that both kinds of requests have.

    Raises:
        APIError: options that do not fit together.
    """
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options: only with stream=true. Leave it out.", "stream_options")
    names = ("temperature", "top_p", "top_k", "repetition_penalty", "frequency_penalty", "presence_penalty")
    given = {name: getattr(body, name) for name in names}
    return TextParams(
        options={name: value for name, value in given.items() if value is not None},
        n=body.n or 1,
        seed=body.seed,
        stream=bool(body.stream),
        **others,
    )


def stops(body: TextRequest) -> list[str]:
    """Stop sequences of a request."""
    return [body.stop] if isinstance(body.stop, str) else body.stop or []


@endpoint("POST", "/v1/completions", chunk=Completion)
async def completions(service: Service, body: CompletionRequest) -> Completion | Stream:
    """Continue texts."""
    prompts: list[Any] = body.prompt if isinstance(body.prompt, list) else [body.prompt]
    if prompts and isinstance(prompts[0], int):
        prompts = [prompts]
    limit = 16 if body.max_tokens is None else body.max_tokens
    params = text_params(
        body,
        max_tokens=limit,
        stop=stops(body),
        n_top=body.logprobs,
        score_prompt=bool(body.echo) and body.logprobs is not None,
    )
    events = generate(service, body.model, prompts, params)
    echoed = [await text_of(service, body.model, prompt) for prompt in prompts] if body.echo else None
    writer = CompletionWriter(body, params.n, echoed)
    return await answer(events, writer, bool(body.stream))


async def text_of(service: Service, model: str, prompt: str | list[int]) -> str:
    """A prompt as text."""
    if isinstance(prompt, str):
        return prompt
    async with service.pool.use(model) as engine:
        known = [token for token in prompt if token < len(engine.model.tokenizer.pieces)]
        return str(engine.model.tokenizer.decode(known))


class Writer:
    """Collects events, or converts them to chunks.

    Args:
        body: the request.
        prefix: of the answer's id.
    """

    def __init__(self, body: TextRequest, prefix: str) -> None:
        self.id, self.created, self.model = f"{prefix}-{uuid.uuid4().hex}", int(time.time()), body.model
        self.include_usage = bool(body.stream_options and body.stream_options.include_usage)
        self.prompt_tokens = 0

    def usage(self, end: Finished) -> Usage:
        """Number of tokens."""
        total = self.prompt_tokens + end.completion_tokens
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=end.completion_tokens, total_tokens=total)

    def begin(self, start: Started) -> list[Any]:
        """Chunks before the first text."""
        raise NotImplementedError

    def chunk(self, piece: Piece) -> list[Any]:
        """Chunks of a piece."""
        raise NotImplementedError

    def end(self, end: Finished) -> list[Any]:
        """Chunks after the last text."""
        raise NotImplementedError

    def whole(self, pieces: list[Piece], end: Finished) -> Any:
        """The answer that is not a stream; a piece for each choice."""
        raise NotImplementedError


async def answer(events: AsyncGenerator[Event, None], writer: Writer, stream: bool) -> Any:
    """Collect an answer, or begin a stream. Errors before the first text have a status."""
    try:
        started = await anext(events)
        assert isinstance(started, Started)
        writer.prompt_tokens = started.prompt_tokens
        first = writer.begin(started)
        if stream:
            return Stream(chunks(events, writer, first))
        pieces: list[Piece] = []
        async for event in events:
            if isinstance(event, Piece):
                pieces.append(event)
            elif isinstance(event, Finished):
                pieces.sort(key=lambda piece: piece.index)
                await events.aclose()
                return writer.whole(pieces, event)
        raise AssertionError("A generation without an end.")
    except BaseException:
        await events.aclose()
        raise


async def chunks(events: AsyncGenerator[Event, None], writer: Writer, first: list[Any]) -> AsyncGenerator[Any, None]:
    """Chunks of a stream."""
    try:
        for chunk in first:
            yield chunk
        async for event in events:
            made = writer.chunk(event) if isinstance(event, Piece) else writer.end(event)  # type: ignore[arg-type]
            for chunk in made:
                yield chunk
    finally:
        await events.aclose()


class CompletionWriter(Writer):
    """Answers of `/v1/completions`.

    Args:
        body: the request.
        n: choices of each prompt.
        echoed: prompts that the texts begin with.
    """

    def __init__(self, body: CompletionRequest, n: int, echoed: list[str] | None) -> None:
        super().__init__(body, "cmpl")
        self.n, self.echoed, self.scored = n, echoed, body.logprobs is not None
        self.n_top = body.logprobs or 0
        self.offsets: dict[int, Any] = {}  # choice -> decoder, and characters so far
        self.scores: list[list[TokenInfo]] = []

    def begin(self, start: Started) -> list[Any]:
        """Prompts, if they are asked for."""
        self.scores = start.prompts
        if self.echoed is None:
            return []
        n_choices = len(self.echoed) * self.n
        return [
            self._completion(self._choice(i, self.echoed[i // self.n], self._scored(i), None)) for i in range(n_choices)
        ]

    def _scored(self, index: int) -> list[TokenInfo]:
        return self.scores[index // self.n] if self.scores else []

    def chunk(self, piece: Piece) -> list[Any]:
        """One chunk."""
        return [self._completion(self._choice(piece.index, piece.text, piece.tokens, piece.finish_reason))]

    def end(self, end: Finished) -> list[Any]:
        """The usage, if it is asked for."""
        return [self._completion(usage=self.usage(end))] if self.include_usage else []

    def whole(self, pieces: list[Piece], end: Finished) -> Completion:
        """The completion."""
        self.offsets.clear()
        found = []
        for piece in pieces:
            before = self.echoed[piece.index // self.n] if self.echoed is not None else ""
            tokens = [*self._scored(piece.index), *piece.tokens] if self.echoed is not None else piece.tokens
            found.append(self._choice(piece.index, before + piece.text, tokens, piece.finish_reason))
        return self._completion(*found, usage=self.usage(end))

    def _completion(self, *choices: CompletionChoice, usage: Usage | None = None) -> Completion:
        return Completion(id=self.id, created=self.created, model=self.model, choices=list(choices), usage=usage)

    def _choice(self, index: int, text: str, tokens: list[TokenInfo], reason: str | None) -> CompletionChoice:
        logprobs = self._logprobs(index, tokens) if self.scored else None
        finish = None if reason is None else FINISH[reason]
        return CompletionChoice(
            text=text, index=index, logprobs=logprobs, finish_reason=finish, zoo_finish_reason=reason  # type: ignore[arg-type]
        )  # fmt: skip

    def _logprobs(self, index: int, tokens: list[TokenInfo]) -> CompletionLogprobs:
        decoder, done = self.offsets.get(index) or (codecs.getincrementaldecoder("utf-8")("replace"), 0)
        offsets = []
        for info in tokens:
            offsets.append(done)
            done += len(decoder.decode(info.piece))
        self.offsets[index] = decoder, done
        top = [{shown(p): bounded(v) for p, v in info.top} or None for info in tokens] if self.n_top else None
        return CompletionLogprobs(
            tokens=[shown(info.piece) for info in tokens],
            token_logprobs=[None if info.log_prob != info.log_prob else bounded(info.log_prob) for info in tokens],
            top_logprobs=top,
            text_offset=offsets,
        )


def shown(piece: bytes) -> str:
    """Text of a token; a part of a character as `bytes:` and its bytes, as in the original."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def bounded(log_prob: float) -> float:
    """A log-probability that JSON has."""
    return log_prob if log_prob > LEAST else LEAST
