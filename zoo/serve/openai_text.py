"""`/v1/completions` and `/v1/chat/completions`."""

import codecs
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from zoo.core.errors import DataError
from zoo.models.abilities import SupportsTokenSampling
from zoo.models.ability import supports
from zoo.serve.errors import invalid
from zoo.serve.jobs import Finished, Piece, Started, TextParams, TokenInfo
from zoo.serve.openai_types import (
    Answer,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatRequest,
    ChunkChoice,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
    Delta,
    Message,
    TextRequest,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from zoo.serve.retriever import Source, with_passages
from zoo.serve.service import Service, Stream, endpoint
from zoo.serve.text import FINISH, Event, generate

PASSAGES = 4  # of the index, if a request does not say how many
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


@endpoint("POST", "/v1/chat/completions", chunk=ChatChunk)
async def chat_completions(service: Service, body: ChatRequest) -> ChatCompletion | Stream:
    """Answer in a chat, by the chat template of the model."""
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid("top_logprobs: only with logprobs=true. Set it.", "top_logprobs")
    if sum(len(content_of(message)) for message in body.messages) > service.limits.prompt:
        raise invalid(
            f"messages: longer than {service.limits.prompt} characters. Shorten them.", "messages", "too_long"
        )
    template = await service.pool.template(body.model)
    messages = [{"role": m.role.replace("developer", "system"), "content": content_of(m)} for m in body.messages]
    most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    try:
        prompt = template.render(messages)
        sources = None
        if service.retriever is not None and messages[-1]["role"] == "user":
            prompt, sources = await retrieved(service, body, messages, template, most)
    except DataError as error:
        raise invalid(str(error), "messages") from error
    params = text_params(
        body,
        max_tokens=most,
        stop=[*stops(body), *template.stop],
        n_top=(body.top_logprobs or 0) if body.logprobs else None,
    )
    writer = ChatWriter(body, params.n, sources)
    return await answer(generate(service, body.model, [prompt], params), writer, bool(body.stream))


async def retrieved(
    service: Service, body: ChatRequest, messages: list[dict[str, str]], template: Any, most: int | None
) -> tuple[str, list[Source]]:
    """The prompt with passages of the index, and these passages."""
    wanted, asked = PASSAGES if body.passages is None else body.passages, messages[-1]["content"]
    hits = await service.retriever.search(asked, wanted) if service.retriever is not None and wanted else []
    async with service.pool.use(body.model) as engine:
        if not supports(engine.model, SupportsTokenSampling):
            return template.render(messages), []
        return await engine.call(lambda model: with_passages(messages, hits, template, model, most))


def content_of(message: Message) -> str:
    """Text of a message."""
    return message.content if isinstance(message.content, str) else "".join(part.text for part in message.content)


class ChatWriter(Writer):
    """Answers of `/v1/chat/completions`.

    Args:
        body: the request.
        n: number of choices.
        sources: passages in the prompt; None without an index.
    """

    def __init__(self, body: ChatRequest, n: int, sources: list[Source] | None = None) -> None:
        super().__init__(body, "chatcmpl")
        self.n, self.scored, self.sources = n, bool(body.logprobs), sources

    def begin(self, start: Started) -> list[Any]:
        """The role of each choice, and the passages with the first."""
        roles = [self._chunk(ChunkChoice(index=i, delta=Delta(role="assistant", content=""))) for i in range(self.n)]
        return [replace(roles[0], zoo_sources=self.sources), *roles[1:]]

    def chunk(self, piece: Piece) -> list[Any]:
        """The text, then an empty chunk with the reason of the end."""
        made = []
        if piece.text or piece.tokens:
            delta = Delta(content=piece.text)
            made.append(ChunkChoice(index=piece.index, delta=delta, logprobs=self._logprobs(piece)))
        if piece.finish_reason:
            finish: Any = FINISH[piece.finish_reason]
            made.append(
                ChunkChoice(
                    index=piece.index, delta=Delta(), finish_reason=finish, zoo_finish_reason=piece.finish_reason
                )
            )
        return [self._chunk(choice) for choice in made]

    def end(self, end: Finished) -> list[Any]:
        """The usage, if it is asked for."""
        return [self._chunk(usage=self.usage(end))] if self.include_usage else []

    def whole(self, pieces: list[Piece], end: Finished) -> ChatCompletion:
        """The answers."""
        found: list[ChatChoice] = []
        for piece in pieces:
            finish: Any = FINISH[str(piece.finish_reason)]
            found.append(
                ChatChoice(
                    index=piece.index, message=Answer(content=piece.text), logprobs=self._logprobs(piece),
                    finish_reason=finish, zoo_finish_reason=piece.finish_reason,
                )
            )  # fmt: skip
        return ChatCompletion(
            id=self.id, created=self.created, model=self.model, choices=found, usage=self.usage(end),
            zoo_sources=self.sources,
        )  # fmt: skip

    def _chunk(self, *choices: ChunkChoice, usage: Usage | None = None) -> ChatChunk:
        return ChatChunk(id=self.id, created=self.created, model=self.model, choices=list(choices), usage=usage)

    def _logprobs(self, piece: Piece) -> ChatLogprobs | None:
        if not self.scored:
            return None
        return ChatLogprobs(
            content=[
                TokenLogprob(
                    token=shown(info.piece), logprob=bounded(info.log_prob), bytes=list(info.piece),
                    top_logprobs=[
                        TopLogprob(token=shown(p), logprob=bounded(v), bytes=list(p)) for p, v in info.top
                    ],
                )
                for info in piece.tokens
            ]
        )  # fmt: skip
