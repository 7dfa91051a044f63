"""`/v1/chat/completions`."""

from dataclasses import replace
from typing import Any

from zoo.core.errors import DataError
from zoo.models.abilities import SupportsTokenSampling
from zoo.models.ability import supports
from zoo.serve.errors import invalid
from zoo.serve.jobs import Finished, Piece, Started
from zoo.serve.openai_text import Writer, answer, bounded, shown, stops, text_params
from zoo.serve.openai_types import (
    Answer,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatRequest,
    ChunkChoice,
    Delta,
    Message,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from zoo.serve.retriever import Source, with_passages
from zoo.serve.service import Service, Stream, endpoint
from zoo.serve.text import FINISH, generate

PASSAGES = 4  # of the index, if a request does not say how many


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
