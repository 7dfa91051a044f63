"""Speculative decoding: a small model drafts tokens, and a large one checks several in one pass.

The texts have exactly the distribution of the large model (Leviathan et al. 2023, 2211.17192; Chen et al. 2023,
2302.01318). Greedy texts are those of the large model.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.nn.samplers.autoregressive import RowNoise, fit_prompt, truncate
from zoo.nn.samplers.sampling_params import SamplingParams
from zoo.nn.samplers.text_stream import TextStreamer


class Rewindable(Protocol):
    """A decoder that reads several tokens at once, and removes the last ones."""

    context: float

    def new_cache(self, batch: int) -> Any:
        """State without tokens."""

    def extend(self, tokens: Tensor, state: Any) -> Tensor:
        """Append tokens (B, T) to the state: logits after each (B, T, V)."""

    def rewind(self, state: Any, n: int) -> None:
        """Remove the last n tokens of every row."""


def check_token(p: Tensor, q: Tensor, token: int, uniform: Tensor) -> tuple[bool, int]:
    """Accept a drafted token with probability min(1, p / q), or draw another from the positive part of p - q.

    If the token has distribution q, the result has distribution p.

    Args:
        p: probabilities of the large model (V,).
        q: probabilities of the draft (V,).
        token: drawn from q.
        uniform: two numbers in [0, 1).

    Returns:
        Whether the token was accepted, and the token that takes its place.
    """
    if uniform[0] * q[token] < p[token]:
        return True, token
    rest = (p - q).clamp(min=0)
    return False, draw(rest if rest.sum() > 0 else p, uniform[1])


def draw(p: Tensor, uniform: Tensor) -> int:
    """Index drawn from weights (V,) by a uniform number."""
    cumulative = p.cumsum(0)
    target = torch.minimum(uniform * cumulative[-1], torch.nextafter(cumulative[-1], torch.zeros(())))
    return int(torch.searchsorted(cumulative, target, right=True))


def check_rewindable(model: Any, sampling: SamplingParams) -> None:
    """Check that a decoder and options support speculative decoding.

    Raises:
        ConfigError: a recurrent network, masked documents, or options that depend on the tokens so far.
    """
    if not hasattr(model, "rewind"):
        raise ConfigError(
            f"draft: {type(model).__name__} cannot remove tokens. Use models with a transformer backbone, or an n-gram "
            f"model as the draft."
        )
    if getattr(model, "end", None) is not None:
        raise ConfigError("draft: not together with model.document_mask=true. Leave out the draft.")
    if sampling.has_rules or sampling.repetition_penalty != 1:
        raise ConfigError("draft: not together with penalties, n-grams and constraints. Leave out one of them.")


@torch.no_grad()
def speculative_tokens(
    model: Rewindable,
    draft: Rewindable,
    prompt: Sequence[int],
    sampling: SamplingParams,
    *,
    n_draft: int = 4,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[int, float]]:
    """Sample endlessly: yield tokens and their log-probabilities under the large model, in nats.

    Args:
        model: the large model.
        draft: the small one, of the same tokens and of at least the same context.
        prompt: tokens before the generated ones.
        sampling: options without those that depend on the tokens so far.
        n_draft: tokens per pass of the large model.
        generator: source of randomness; None is torch's global one.
        device: of the models.

    Raises:
        ConfigError: models or options that do not apply; see `check_rewindable`.
    """
    for each in (model, draft):
        check_rewindable(each, sampling)
    if draft.context < model.context:
        raise ConfigError(f"draft: has a context of {draft.context} tokens. Use one with at least {model.context}.")
    noise = RowNoise(1, generator)
    row = fit_prompt(model, list(prompt))  # type: ignore[arg-type]
    states, behind = _read(model, draft, row, device), row[-1:]  # `behind`: tokens that the draft has not read
    while True:
        count = min(n_draft, int(model.context) - len(row))
        drafted, chances = _drafted(draft, states[1], behind, count, sampling, noise, device)
        logits = model.extend(torch.tensor([[row[-1], *drafted]], device=device), states[0])[0].float().cpu()
        found = _checked(sampling.probabilities(logits), chances, drafted, noise)
        kept = len(found) - 1  # drafted tokens that were accepted
        model.rewind(states[0], count - kept)
        if count - kept > 1:
            draft.rewind(states[1], count - 1 - kept)
        yield from zip(found, logits.log_softmax(-1)[range(len(found)), found].tolist(), strict=True)
        row += found
        behind = found[-2:] if kept == count else found[-1:]
        if len(row) > model.context:
            row = truncate(model, row)  # type: ignore[arg-type]
            states, behind = _read(model, draft, row, device), row[-1:]


def stream_drafted(
    model: Rewindable,
    draft: Rewindable,
    prompts: Sequence[Sequence[int]],
    streamers: Sequence[TextStreamer],
    sampling: SamplingParams,
    *,
    n_draft: int,
    generator: torch.Generator | None,
    device: torch.device | str,
) -> Iterator[tuple[int, str]]:
    """Sample row after row until its streamer has finished; yield (row, text that is final)."""
    for row, (prompt, streamer) in enumerate(zip(prompts, streamers, strict=True)):
        steps = speculative_tokens(model, draft, prompt, sampling, n_draft=n_draft, generator=generator, device=device)
        while not streamer.finish_reason:
            if text := streamer.push(*next(steps)):
                yield row, text


def _read(model: Rewindable, draft: Rewindable, row: list[int], device: torch.device | str) -> tuple[Any, Any]:
    """States of both with all tokens of a row but the last."""
    states = model.new_cache(1), draft.new_cache(1)
    if len(row) > 1:
        for each, state in zip((model, draft), states, strict=True):
            each.extend(torch.tensor([row[:-1]], device=device), state)
    return states


def _drafted(
    draft: Rewindable,
    state: Any,
    behind: list[int],
    count: int,
    sampling: SamplingParams,
    noise: RowNoise,
    device: torch.device | str,
) -> tuple[list[int], list[Tensor]]:
    """Draft `count` tokens after those that are still to be read, with the distribution (V,) of each."""
    tokens, chances = list[int](), list[Tensor]()
    for _ in range(count):
        logits = draft.extend(torch.tensor([behind], device=device), state)[0, -1:].float().cpu()
        chances.append(sampling.probabilities(logits)[0])
        behind = [draw(chances[-1], noise.draw(1)[0, 0])]
        tokens += behind
    return tokens, chances


def _checked(p: Tensor, chances: list[Tensor], drafted: list[int], noise: RowNoise) -> list[int]:
    """Accepted tokens, and one more: in place of the first rejected one, or after all."""
    found = []
    for token, mine, q in zip(drafted, p, chances, strict=False):
        accepted, token = check_token(mine, q, token, noise.draw(2)[0])
        found.append(token)
        if not accepted:
            return found
    return [*found, draw(p[len(drafted)], noise.draw(1)[0, 0])]
