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

from zoo.errors import ZooError
from zoo.nn.writing import Completion, Writer
from zoo.registry import unknown

BLOCK = 16  # steps between two looks at what was written: each look makes an accelerator wait


class Steps(Protocol):
    """A model that reads tokens and predicts the next one."""

    context: float  # most tokens that a state can hold; infinity where there is no such number

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Any]:
        """Prompts (B, T), the first `padding` (B,) tokens of each row meaningless: logits (B, V), and a state."""

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """One more token per row (B,), entered in the state: logits (B, V)."""

    def reorder(self, state: Any, rows: Tensor) -> None:
        """Row b of the state becomes what row `rows[b]` was."""


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen: repetition penalty, temperature, top-k, top-p, in this order.

    Args:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: only the k likeliest tokens, exactly k where several are equal; 0 is all.
        top_p: only the smallest set of likeliest tokens that holds this much probability (Holtzman et al.
            2020, 1904.09751); sums are compared to within 1e-6.
        repetition_penalty: divides positive and multiplies negative logits of tokens that the row already
            holds (Keskar et al. 2019, 1909.05858).

    Raises:
        ZooError: a value out of range.
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
                raise ZooError(f"{text}.")

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


def held(model: Steps, row: list[int]) -> list[int]:
    """What a model can hold of a row: all of it, or its last half context."""
    return row if len(row) <= model.context else row[-max(int(model.context) // 2, 1) :]


def begin(model: Steps, rows: list[list[int]], device: torch.device | str) -> tuple[Tensor, Any, float]:
    """Read rows of unequal length: logits (B, V), a state, and how many more tokens it can take.

    Rows longer than the context are cut to their last half context.
    """
    if not all(rows):
        raise ZooError("a prompt needs at least one token: begin it with the end-of-text token.")
    rows = [held(model, row) for row in rows]
    width = max(map(len, rows))
    padding = torch.tensor([width - len(row) for row in rows], device=device)
    tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    unequal = min(map(len, rows)) < width
    logits, state = model.prefill(tokens, padding if unequal else None)
    return logits.float(), state, model.context - width


@torch.no_grad()
def draw(
    model: Steps,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    generator: torch.Generator | None = None,
    every: int = BLOCK,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Write on and on: blocks of `every` tokens (B, every) and their log-probabilities under the model, in nats.

    The random numbers do not depend on `every`, nor on what other rows do.
    """
    rows = [list(prompt) for prompt in prompts]
    logits, state, room = begin(model, rows, device)
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
            logits, state, room = begin(model, _joined(model, prompts, so_far), device)


def _joined(model: Steps, prompts: Sequence[Sequence[int]], written: list[list[int]]) -> list[list[int]]:
    """What each row holds after all its cuts to the last half context."""
    rows = []
    for prompt, new in zip(prompts, written, strict=True):
        row = held(model, list(prompt))
        for token in new:
            row.append(token)
            row = held(model, row)
        rows.append(row)
    return rows


def write(
    model: Steps,
    prompts: Sequence[Sequence[int]],
    writers: Sequence[Writer],
    sampling: Sampling,
    *,
    generator: torch.Generator | None = None,
    every: int = BLOCK,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[int, str]]:
    """Write until every writer has finished; yields (row, text that has become certain)."""
    if all(writer.finish for writer in writers):
        return
    for tokens, scores in draw(model, prompts, sampling, generator=generator, every=every, device=device):
        for row, (writer, ids, nats) in enumerate(zip(writers, tokens.tolist(), scores.tolist(), strict=True)):
            for token, log_prob in zip(ids, nats, strict=True):
                if writer.finish:
                    break
                if text := writer.push(token, log_prob):
                    yield row, text
        if all(writer.finish for writer in writers):
            return


@dataclass
class Beam:
    """A text under construction and what it is worth."""

    writer: Writer
    history: list[int]
    score: float  # nats


def beam_search(
    model: Steps,
    prompt: Sequence[int],
    pieces: Sequence[bytes],
    end: int | None,
    *,
    beams: int,
    limit: int,
    length_penalty: float = 1.0,
    stop: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> Completion:
    """`beam_searches` after one prompt."""
    return beam_searches(
        model, [prompt], pieces, end,
        beams=beams, limits=[limit], length_penalty=length_penalty, stop=stop, device=device,
    )[0]  # fmt: skip


@torch.no_grad()
def beam_searches(
    model: Steps,
    prompts: Sequence[Sequence[int]],
    pieces: Sequence[bytes],
    end: int | None,
    *,
    beams: int,
    limits: Sequence[int],
    length_penalty: float = 1.0,
    stop: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> list[Completion]:
    """For each prompt the completion of highest log-probability / tokens^length_penalty that a search so wide finds.

    All searches take their steps together, each as it would alone, until it is over.

    Args:
        model: predicts.
        prompts: tokens before.
        pieces: the bytes of every token.
        end: the end-of-text token, or None.
        beams: unfinished texts that each search keeps at each step.
        limits: most tokens, for each prompt.
        length_penalty: 0 favours short texts, 1 compares nats per token.
        stop: stop sequences, which finish a beam.
        device: of the model.
    """

    def worth(score: float, length: int) -> float:
        return score / max(length, 1) ** length_penalty

    live = {n: [Beam(Writer(pieces, end, stop, limit), list(p), 0.0)] for n, (p, limit) in
            enumerate(zip(prompts, limits, strict=True))}  # fmt: skip
    best: dict[int, tuple[float, Completion]] = {
        n: (0.0, first.writer.result()) for n, (first,) in live.items() if first.writer.finish
    }
    live = {n: group for n, group in live.items() if n not in best}
    rows = [b for group in live.values() for b in group]
    if rows:
        logits, state, room = begin(model, [b.history for b in rows], device)
    while live:
        # Added up in double precision on the host, which has to look at each step anyway.
        scores = logits.log_softmax(-1).cpu().double() + torch.tensor([[b.score] for b in rows], dtype=torch.double)
        table = scores.new_full((len(live), beams, scores.shape[1]), -torch.inf)  # searches x beams x tokens
        table[torch.tensor([[i < len(group) for i in range(beams)] for group in live.values()])] = scores
        flat = table.flatten(1)
        values, places = flat.topk(min(2 * beams, flat.shape[1]))
        kept, parents, first = dict[int, list[Beam]](), list[int](), 0
        for (n, group), worths, found in zip(live.items(), values.tolist(), places.tolist(), strict=True):
            grown, origins = list[Beam](), list[int]()
            for score, place in zip(worths, found, strict=True):
                if len(grown) == beams or score == -torch.inf:
                    break
                parent, token = divmod(place, scores.shape[1])
                writer = group[parent].writer.fork()
                writer.push(token, score - group[parent].score)
                if not writer.finish:
                    grown.append(Beam(writer, [*group[parent].history, token], score))
                    origins.append(first + parent)
                elif n not in best or worth(score, len(writer.log_probs)) > best[n][0]:
                    best[n] = worth(score, len(writer.log_probs)), writer.result()
            first += len(group)
            # Nats only fall: at most a beam is worth what it has now, spread over the greatest length.
            if grown and (n not in best or max(worth(b.score, limits[n]) for b in grown) > best[n][0]):
                kept[n] = grown
                parents += origins
        live = kept
        rows = [b for group in live.values() for b in group]
        if not rows:
            break
        if room:
            model.reorder(state, torch.tensor(parents, device=device))
            newest = torch.tensor([b.history[-1] for b in rows], device=device)
            logits, room = model.step(newest, state).float(), room - 1
        else:
            for beam in rows:
                beam.history = held(model, beam.history)
            logits, state, room = begin(model, [b.history for b in rows], device)
    return [best[n][1] for n in range(len(prompts))]  # the limit finishes whatever nothing else does


def choices(options: dict[str, Any], **defaults: Any) -> Sampling:
    """`Sampling` from options, None meaning the default.

    Raises:
        ZooError: an option that does not exist.
    """
    known = [f.name for f in fields(Sampling)]
    for name in options:
        if name not in known:
            raise ZooError(f"{unknown('option', name, known)}.")
    return Sampling(**defaults | {k: v for k, v in options.items() if v is not None})
