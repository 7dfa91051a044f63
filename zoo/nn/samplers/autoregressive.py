"""Writing with a model that predicts one token after another: sampling, beam search, stop sequences, streaming.

The model is known by three methods (`Steps`), text by a table of byte strings, one per token; nothing else is assumed.

A row that has more tokens than the model has positions goes on from its last half context. Rows of a batch do
so each in its own time, and prompts of unequal length are padded on the left, so that a row is written as it
would be alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.core.registry import unknown_name_message
from zoo.nn.samplers.text_stream import TextStreamer

BLOCK = 16  # steps between two looks at what was written: each look makes an accelerator wait


class IncrementalDecoder(Protocol):
    """A model that reads tokens and predicts the next one."""

    context: float  # most tokens that a state can hold; infinity where there is no such number

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Any]:
        """Prompts (B, T), the first `padding` (B,) tokens of each row meaningless: logits (B, V), and a state."""

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """One more token per row (B,), entered in the state: logits (B, V)."""

    def reorder(self, state: Any, rows: Tensor) -> None:
        """Row b of the state becomes what row `rows[b]` was."""


@dataclass(frozen=True)
class SamplingParams:
    """How a token is chosen: repetition penalty, temperature, top-k, top-p, in this order.

    Args:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: only the k likeliest tokens, exactly k where several are equal; 0 is all.
        top_p: only the smallest set of likeliest tokens that holds this much probability (Holtzman et al.
            2020, 1904.09751); sums are compared to within 1e-6.
        repetition_penalty: divides positive and multiplies negative logits of tokens that the row already
            holds (Keskar et al. 2019, 1909.05858).

    Raises:
        ConfigError: a value out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for good, text in (
            (self.temperature >= 0, f"temperature={self.temperature} must be at least 0"),
            (self.top_k >= 0, f"top_k={self.top_k} must be at least 0 (0 is all tokens)"),
            (0 < self.top_p <= 1, f"top_p={self.top_p} must be greater than 0 and at most 1"),
            (
                self.repetition_penalty > 0,
                f"repetition_penalty={self.repetition_penalty} must be greater than 0",
            ),
        ):
            if not good:
                raise ConfigError(f"{text}.")

    def choose(self, logits: Tensor, uniform: Tensor, seen: Tensor | None = None) -> Tensor:
        """Tokens (B,) from logits (B, V) by one uniform number in [0, 1) per row, without waiting for the device."""
        if seen is not None:
            penalty = self.repetition_penalty
            logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
        if self.temperature == 0:
            return logits.argmax(-1)
        logits, order = logits / self.temperature, None
        if self.top_k or self.top_p < 1:
            logits, order = logits.sort(dim=-1, descending=True, stable=True)  # of equals the lower token comes first
            logits = logits.masked_fill(~self.kept(logits), -torch.inf)
        mass = logits.softmax(-1).cumsum(-1)  # (B, V)
        total = mass[:, -1:]
        # The first token whose cumulative mass exceeds u * total; rounding must not reach the total itself.
        target = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
        index = torch.searchsorted(mass, target, right=True)
        return (index if order is None else order.gather(1, index)).squeeze(1)

    def kept(self, logits: Tensor) -> Tensor:
        """Which of the logits (B, V), sorted downwards, top-k and top-p keep."""
        rank = torch.arange(logits.shape[-1], device=logits.device)
        keep = rank < (self.top_k or logits.shape[-1])
        probability = logits.masked_fill(~keep, -torch.inf).softmax(-1)
        before = probability.cumsum(-1) - probability
        return keep & ((before < self.top_p - 1e-6) | (rank == 0))


def truncate(model: IncrementalDecoder, row: list[int]) -> list[int]:
    """What a model can hold of a row: all of it, or its last half context."""
    return row if len(row) <= model.context else row[-max(int(model.context) // 2, 1) :]


def prefill(model: IncrementalDecoder, rows: list[list[int]], device: torch.device | str) -> tuple[Tensor, Any, float]:
    """Read rows of unequal length: logits (B, V), a state, and how many more tokens it can take.

    Rows longer than the context are cut to their last half context.
    """
    if not all(rows):
        raise ConfigError("a prompt needs at least one token: begin it with the end-of-text token.")
    rows = [truncate(model, row) for row in rows]
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
    every: int = BLOCK,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Write on and on: blocks of `every` tokens (B, every) and their log-probabilities under the model, in nats.

    The random numbers do not depend on `every`, nor on what other rows do.
    """
    rows = [list(prompt) for prompt in prompts]
    logits, state, room = prefill(model, rows, device)
    seen = None
    if sampling.repetition_penalty != 1:
        vocabulary = logits.shape[1]
        held = [torch.tensor([t for t in row if t < vocabulary], dtype=torch.long) for row in rows]
        seen = torch.stack([torch.zeros(vocabulary, dtype=torch.bool).index_fill(0, h, True) for h in held]).to(device)
    written: list[Tensor] = []  # (B,) each
    scores: list[Tensor] = []
    for number in count():
        if number % BLOCK == 0:
            noise = torch.rand(BLOCK, len(rows), generator=generator).to(device)
        token = sampling.choose(logits, noise[number % BLOCK], seen)  # (B,)
        if seen is not None:
            seen.scatter_(1, token[:, None], True)
        written.append(token)
        scores.append(logits.log_softmax(-1).gather(1, token[:, None]).squeeze(1))
        if len(scores) == every:
            yield torch.stack(written[-every:], dim=1), torch.stack(scores, dim=1)
            scores = []
        if room:
            logits, room = model.step(token, state).float(), room - 1
        else:
            so_far = torch.stack(written, dim=1).tolist()
            logits, state, room = prefill(model, _joined(model, prompts, so_far), device)


def _joined(model: IncrementalDecoder, prompts: Sequence[Sequence[int]], written: list[list[int]]) -> list[list[int]]:
    """What each row holds after all its cuts to the last half context."""
    rows = []
    for prompt, new in zip(prompts, written, strict=True):
        row = truncate(model, list(prompt))
        for token in new:
            row.append(token)
            row = truncate(model, row)
        rows.append(row)
    return rows


def stream_tokens(
    model: IncrementalDecoder,
    prompts: Sequence[Sequence[int]],
    writers: Sequence[TextStreamer],
    sampling: SamplingParams,
    *,
    generator: torch.Generator | None = None,
    every: int = BLOCK,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[int, str]]:
    """Write until every writer has finished; yields (row, text that has become certain)."""
    if all(writer.finish for writer in writers):
        return
    for tokens, scores in sample_tokens(model, prompts, sampling, generator=generator, every=every, device=device):
        for row, (writer, ids, nats) in enumerate(zip(writers, tokens.tolist(), scores.tolist(), strict=True)):
            for token, log_prob in zip(ids, nats, strict=True):
                if writer.finish:
                    break
                if text := writer.push(token, log_prob):
                    yield row, text
        if all(writer.finish for writer in writers):
            return


def parse_sampling(options: dict[str, Any], **defaults: Any) -> SamplingParams:
    """`Sampling` from options, None meaning the default.

    Raises:
        ConfigError: an option that does not exist.
    """
    known = [f.name for f in fields(SamplingParams)]
    for name in options:
        if name not in known:
            raise ConfigError(f"{unknown_name_message('option', name, known)}.")
    return SamplingParams(**defaults | {k: v for k, v in options.items() if v is not None})
