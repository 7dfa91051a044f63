"""Requests and answers of OpenAI's interface for text."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Interval, Len, MaxLen

from zoo.serve.retriever import Source
from zoo.serve.schema import Request

ModelName = Annotated[str, MaxLen(200)]
Temperature = Annotated[float | None, Interval(ge=0, le=2)]
TopP = Annotated[float | None, Interval(gt=0, le=1)]
Penalty = Annotated[float | None, Interval(ge=-2, le=2)]
Seed = Annotated[int | None, Interval(ge=-(2**63), le=2**63 - 1)]
Choices = Annotated[int | None, Interval(ge=1, le=128)]
StopText = Annotated[str, Len(1, 256)]
Stop = StopText | Annotated[list[StopText], MaxLen(4)] | None
Ids = list[Annotated[int, Interval(ge=0)]]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class StreamOptions(Request):
    """Options of a stream.

    Args:
        include_usage: end with a chunk that has the number of tokens.
    """

    include_usage: bool | None = None
    ignored = ("include_obfuscation",)


@dataclass(frozen=True, kw_only=True)
class TextRequest(Request):
    """Settings that both kinds of text generation have.

    Args:
        model: one of `/v1/models`.
        temperature: divides the logits; 0 is greedy. By default the model's own.
        top_p: smallest set of likeliest tokens with this much probability.
        top_k: keep only so many likeliest tokens; 0 keeps all. Not part of the original.
        repetition_penalty: divides positive logits of tokens in the text. Not part of the original.
        n: choices of each prompt.
        stream: answer by server-sent events.
        stream_options: of the stream.
        stop: up to four texts that end a choice, and are left out.
        seed: equal seeds give equal texts, whatever else the server does.
        frequency_penalty: subtracted from a logit for each occurrence among the generated tokens.
        presence_penalty: subtracted once.
    """

    model: ModelName
    temperature: Temperature = None
    top_p: TopP = None
    top_k: Annotated[int | None, Interval(ge=0, le=1_000_000)] = None
    repetition_penalty: Annotated[float | None, Interval(ge=0.01, le=100)] = None
    n: Choices = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stop = None
    seed: Seed = None
    frequency_penalty: Penalty = None
    presence_penalty: Penalty = None


@dataclass(frozen=True, kw_only=True)
class CompletionRequest(TextRequest):
    """A request to continue prompts.

    Args:
        prompt: one text or several, or their token ids.
        max_tokens: generated tokens at most; 16 by default.
        logprobs: report log-probabilities, and so many likeliest tokens.
        echo: begin the text with the prompt.
    """

    prompt: str | Ids | list[str] | list[Ids] = ""
    max_tokens: Annotated[int | None, Interval(ge=0)] = None
    logprobs: Annotated[int | None, Interval(ge=0, le=20)] = None
    echo: bool | None = None

    ignored = ("user", "metadata", "store")
    unsupported = {"best_of": (1,), "logit_bias": ({},), "suffix": ("",)}  # noqa: RUF012


@dataclass(frozen=True, kw_only=True)
class ContentPart(Request):
    """A part of a message.

    Args:
        type: only text.
        text: of the part.
    """

    type: Literal["text"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Message(Request):
    """A message of a chat.

    Args:
        role: who wrote it.
        content: its text.
    """

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]
    ignored = ("name", "refusal", "annotations", "audio", "function_call", "tool_calls")


@dataclass(frozen=True, kw_only=True)
class ChatRequest(TextRequest):
    """A request to answer in a chat.

    Args:
        messages: of the chat so far.
        max_tokens: generated tokens at most; by default the context.
        max_completion_tokens: the same by its newer name.
        logprobs: report log-probabilities.
        top_logprobs: report so many likeliest tokens.
        passages: at most so many of the server's index precede the last message. Not part of the original.
    """

    messages: Annotated[list[Message], Len(1, 1000)]
    max_tokens: Annotated[int | None, Interval(ge=1)] = None
    max_completion_tokens: Annotated[int | None, Interval(ge=1)] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Interval(ge=0, le=20)] = None
    passages: Annotated[int | None, Interval(ge=0, le=20)] = None

    ignored = (
        "user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key",
        "verbosity", "reasoning_effort",
    )  # fmt: skip
    unsupported = {  # noqa: RUF012
        "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],), "function_call": ("none", "auto"),
        "logit_bias": ({},), "response_format": ({"type": "text"},), "modalities": (["text"],), "audio": (),
        "prediction": (), "web_search_options": (),
    }  # fmt: skip


# -- answers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Number of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True, kw_only=True)
class CompletionLogprobs:
    """Log-probabilities in nats, by token, and the offset of each token in the text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


@dataclass(frozen=True, kw_only=True)
class CompletionChoice:
    """One text; `zoo_finish_reason` is "eos" for the end-of-text token and "stop" for a stop sequence."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None
    zoo_finish_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Texts, or a piece of one."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    object: str = "text_completion"
    omitted_if_none = ("usage",)


@dataclass(frozen=True, kw_only=True)
class TopLogprob:
    """A likely token."""

    token: str
    logprob: float
    bytes: list[int]


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """A generated token with its log-probability in nats."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ChatLogprobs:
    """Log-probabilities of an answer."""

    content: list[TokenLogprob]
    refusal: list[Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The message of the model."""

    content: str
    role: str = "assistant"
    refusal: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChatChoice:
    """One answer; see `CompletionChoice`."""

    index: int
    message: Answer
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    zoo_finish_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChatCompletion:
    """Answers; `zoo_sources` are the passages before the last message, if the server has an index."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    zoo_sources: list[Source] | None = None
    object: str = "chat.completion"
    omitted_if_none = ("zoo_sources",)


@dataclass(frozen=True, kw_only=True)
class Delta:
    """Addition of a chunk to an answer."""

    role: str | None = None
    content: str | None = None
    omitted_if_none = ("role", "content")


@dataclass(frozen=True, kw_only=True)
class ChunkChoice:
    """A piece of one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    zoo_finish_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChatChunk:
    """A piece of the answers; the first one has `zoo_sources`, see `ChatCompletion`."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    zoo_sources: list[Source] | None = None
    object: str = "chat.completion.chunk"
    omitted_if_none = ("usage", "zoo_sources")
