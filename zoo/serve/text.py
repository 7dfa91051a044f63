"""Text generation for handlers: a job in a model's thread as an async generator of events."""

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from zoo.models.abilities import SupportsTokenSampling
from zoo.models.ability import supports
from zoo.serve.engine import Engine
from zoo.serve.errors import invalid
from zoo.serve.jobs import Finished, Piece, Started, TextJob, TextParams, merged
from zoo.serve.service import Service

Event = Started | Piece | Finished
FINISH = {"eos": "stop", "stop": "stop", "length": "length"}  # reasons of the zoo -> of OpenAI


async def generate(
    service: Service, name: str, prompts: Sequence[str | list[int]], params: TextParams
) -> AsyncGenerator[Event, None]:
    """Continue prompts: first `Started`, then pieces of text, at last `Finished`.

    Closing the generator cancels the work.

    Raises:
        APIError: a request that does not fit the model or the limits.
    """
    check_text_limits(service, prompts, params)
    begun = latest = time.perf_counter()
    metrics, started, n_prompt = service.metrics, False, 0
    async with service.pool.use(name) as engine:
        if "generate" not in engine.model.abilities:
            raise invalid(f"model={name}: it does not continue text. Choose a language model.", "model", "unsupported")
        events = decode(engine, prompts, params) if supports(engine.model, SupportsTokenSampling) else fill(
            engine, prompts, params
        )  # fmt: skip
        try:
            async for event in events:
                now = time.perf_counter()
                if isinstance(event, Started):
                    n_prompt = event.prompt_tokens
                    metrics.prompt_tokens.labels(name).inc(n_prompt)
                elif isinstance(event, Piece):
                    (metrics.between_tokens if started else metrics.first_token).labels(name).observe(now - latest)
                    latest, started = now, True
                    if event.finish_reason:
                        metrics.success.labels(name, FINISH[event.finish_reason]).inc()
                else:
                    counts = n_prompt / len(prompts), event.completion_tokens / (len(prompts) * params.n)
                    service.pool.watch_prompt(name, prompts[0], *counts)
                    metrics.generation_tokens.labels(name).inc(event.completion_tokens)
                    metrics.latency.labels(name).observe(now - begun)
                yield event
        finally:
            await events.aclose()


async def decode(engine: Engine, prompts: Sequence[str | list[int]], params: TextParams) -> AsyncGenerator[Event, None]:
    """Events of a model that predicts one token after another."""
    job = TextJob(prompts, params, engine.limits)
    engine.submit(job)
    try:
        while True:
            for event in merged([await job.next_event(), *job.ready_events()]):
                yield event
                if isinstance(event, Finished):
                    return
    finally:
        job.cancelled = True


async def fill(engine: Engine, prompts: Sequence[str | list[int]], params: TextParams) -> AsyncGenerator[Event, None]:
    """Events of another model, such as a masked one: everything at once."""
    if params.n_top is not None or params.score_prompt:
        raise invalid("logprobs: this model does not generate from left to right. Leave it out.", "logprobs")
    for name in ("frequency_penalty", "presence_penalty"):
        if params.options.get(name):
            raise invalid("frequency_penalty: not supported by this model. Leave it out.", "frequency_penalty")
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise invalid("prompt: this model reads text, not token ids. Send text.", "prompt")

    def run(model: Any) -> tuple[int, list[Any]]:
        repeated = [prompt for prompt in prompts for _ in range(params.n)]
        done = model.generate(
            repeated, max_new_tokens=params.max_tokens, stop=list(params.stop), seed=params.seed, **params.options
        )
        return sum(len(model.tokenizer.encode_prompt(prompt)) for prompt in prompts), done

    n_prompt, done = await engine.call(run)
    yield Started(n_prompt)
    for index, completion in enumerate(done):
        yield Piece(index, completion.text, [], completion.finish_reason or "length")
    yield Finished(sum(len(completion.tokens) for completion in done))


def check_text_limits(service: Service, prompts: Sequence[str | list[int]], params: TextParams) -> None:
    """Check sizes before anything is encoded.

    Raises:
        APIError: over a limit.
    """
    limits = service.limits
    size = sum(len(prompt) for prompt in prompts)
    if not prompts:
        raise invalid("prompt=[]: empty. Send at least one prompt.", "prompt")
    if size > limits.prompt:
        raise invalid(f"prompt: longer than {limits.prompt} characters. Shorten it.", "prompt", "too_long")
    if len(prompts) * params.n > limits.rows:
        raise invalid(f"n={params.n}: more than {limits.rows} texts in one request. Send several.", "n")
    if (params.max_tokens or 0) > limits.tokens:
        raise invalid(f"max_tokens={params.max_tokens}: the most are {limits.tokens}. Lower it.", "max_tokens")
