"""Autoregressive sampling from any model that implements `IncrementalDecoder`.

Of a prompt that is longer than the context, the last tokens are read. Rows that outgrow the context continue from its
last half. Rows are independent: each is cut when it needs to be, and has its own random numbers. Short rows are padded
on the left. So a row is generated exactly as it would be alone.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.nn.samplers.constraint import Vocabulary
from zoo.nn.samplers.logit_rules import LogitRules
from zoo.nn.samplers.sampling_params import SamplingParams
from zoo.nn.samplers.text_stream import TextStreamer

BLOCK_SIZE = 16  # steps between device synchronisations


class IncrementalDecoder(Protocol):
    """A model that predicts the next token and keeps a state of the tokens so far."""

    context: float  # maximum tokens of a state; infinite for recurrent networks

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Any]:
        """Process prompts (B, T), whose first `padding` (B,) tokens are padding: next logits (B, V), and a state."""

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """Append one token per row (B,) to the state: next logits (B, V)."""

    def reorder(self, state: Any, rows: Tensor) -> None:
        """Replace row b of the state by row `rows[b]`."""


class RowNoise:
    """Uniform numbers for rows of a batch, each row from its own stream: they do not depend on other rows.

    Args:
        rows: number of rows.
        generator: the seed of all streams is drawn from it; None is torch's global one.
    """

    def __init__(self, rows: int, generator: torch.Generator | None) -> None:
        seed = int(torch.randint(2**31, (), generator=generator))
        self.streams = [torch.Generator().manual_seed(seed + row) for row in range(rows)]

    def draw(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), (rows, *shape), on the CPU."""
        return torch.stack([torch.rand(*shape, generator=stream) for stream in self.streams])


def fit_prompt(model: IncrementalDecoder, row: list[int]) -> list[int]:
    """Return the last tokens of a prompt, as many as the context has positions."""
    return row if len(row) <= model.context else row[-int(model.context) :]


def truncate(model: IncrementalDecoder, row: list[int]) -> list[int]:
    """Return the row, or its last half context if it is longer than the context."""
    return row if len(row) <= model.context else row[-max(int(model.context) // 2, 1) :]


def prefill(model: IncrementalDecoder, rows: list[list[int]], device: torch.device | str) -> tuple[Tensor, Any, float]:
    """Process rows of unequal length: next logits (B, V), a state, and the step of tokens it still has room for.

    Of rows longer than the context, the last tokens are read.

    Raises:
        ConfigError: an empty row.
    """
    if not all(rows):
        raise ConfigError("prompt=[]: a prompt needs at least one token. Start it with the end-of-text token.")
    rows = [fit_prompt(model, row) for row in rows]
    width = max(map(len, rows))
    padding = torch.tensor([width - len(row) for row in rows], device=device)
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    unequal = min(map(len, rows)) < width
    logits, state = model.prefill(tokens, padding if unequal else None)
    return logits.float(), state, model.context - width


@torch.no_grad()
def sample_tokens(
    model: IncrementalDecoder,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingParams,
    *,
    generator: torch.Generator | None = None,
    block_size: int = BLOCK_SIZE,
    device: torch.device | str = "cpu",
    begin: int | None = None,
    vocabulary: Vocabulary | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Sample endlessly: yield blocks of tokens (B, block_size) and their log-probabilities under the model, in nats.

    The random numbers depend neither on `block_size` nor on other rows. The repetition penalty does not count `begin`
    as the first token of a prompt: it is not a part of the text, and often the token that ends one.
    """
    rows = [list(prompt) for prompt in prompts]
    logits, state, room = prefill(model, rows, device)
    seen, rules, vocab_size = None, [], logits.shape[1]
    if sampling.has_rules:
        rules = [LogitRules(sampling, row, vocab_size, begin, vocabulary, device) for row in rows]
    elif sampling.repetition_penalty != 1:
        seen = torch.zeros(len(rows), vocab_size, dtype=torch.bool)
        for mask, row in zip(seen, rows, strict=True):
            mask[[t for t in row[row[0] == begin :] if t < vocab_size]] = True
        seen = seen.to(device)
    sampled: list[Tensor] = []  # (B,) each
    log_probs: list[Tensor] = []
    noise = RowNoise(len(rows), generator)
    for step in count():
        if step % BLOCK_SIZE == 0:
            uniform = noise.draw(BLOCK_SIZE).T.to(device)  # (BLOCK_SIZE, B)
        changed = torch.stack([r.apply(row) for r, row in zip(rules, logits, strict=True)]) if rules else logits
        token = sampling.sample(changed, uniform[step % BLOCK_SIZE], seen)  # (B,)
        for rule, new in zip(rules, token.tolist() if rules else (), strict=True):
            rule.record(new)
        if seen is not None:
            seen.scatter_(1, token[:, None], True)
        sampled.append(token)
        log_probs.append(logits.log_softmax(-1).gather(1, token[:, None]).squeeze(1))
        if len(log_probs) == block_size:
            yield torch.stack(sampled[-block_size:], dim=1), torch.stack(log_probs, dim=1)
            log_probs = []
        if room:
            logits, room = model.step(token, state).float(), room - 1
        else:
            ids = torch.stack(sampled, dim=1).tolist()
            logits, state, room = prefill(model, _truncated(model, prompts, ids), device)


def _truncated(model: IncrementalDecoder, prompts: Sequence[Sequence[int]], new: list[list[int]]) -> list[list[int]]:
    """Tokens that each row's state holds, after all truncations."""
    rows = []
    for prompt, tokens in zip(prompts, new, strict=True):
        row = fit_prompt(model, list(prompt))
        for token in tokens:
            row.append(token)
            row = truncate(model, row)
        rows.append(row)
    return rows


def stream_tokens(
    model: IncrementalDecoder,
    prompts: Sequence[Sequence[int]],
    streamers: Sequence[TextStreamer],
    sampling: SamplingParams,
    *,
    generator: torch.Generator | None = None,
    block_size: int = BLOCK_SIZE,
    device: torch.device | str = "cpu",
    begin: int | None = None,
    vocabulary: Vocabulary | None = None,
) -> Iterator[tuple[int, str]]:
    """Sample until every streamer has finished; yield (row, text that is final)."""
    if all(streamer.finish_reason for streamer in streamers):
        return
    for tokens, log_probs in sample_tokens(
        model,
        prompts,
        sampling,
        generator=generator,
        block_size=block_size,
        device=device,
        begin=begin,
        vocabulary=vocabulary,
    ):
        for row, (streamer, *pair) in enumerate(zip(streamers, tokens.tolist(), log_probs.tolist(), strict=True)):
            for token, log_prob in zip(*pair, strict=True):
                if streamer.finish_reason:
                    break
                if text := streamer.push(token, log_prob):
                    yield row, text
        if all(streamer.finish_reason for streamer in streamers):
            return
