"""Prompts and answers as rows of tokens: out of a batch, through a model, and back into one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from zoo.core.spaces import ABSENT
from zoo.nn.samplers.autoregressive import BLOCK, IncrementalDecoder, SamplingParams, sample_tokens


@dataclass(frozen=True)
class PromptExample:
    """What a model is given, and what it should write.

    Args:
        prompt: tokens, from the one that begins the text.
        answer: tokens, with the end token.
    """

    prompt: list[int]
    answer: list[int]


def prompt_examples(x: Tensor, y: Tensor, begin: int, end: int) -> list[PromptExample]:
    """The prompts in a batch of kind `tokens`, x and y (B, T): what precedes the tokens that are scored.

    A row that packs several texts has several. Where everything is scored, there is no prompt but the token that begins
    a text, and the answer is the text that follows the first token.

    Args:
        x: what is read.
        y: what is scored.
        begin: the token before a text.
        end: the token after one.
    """
    found = []
    for read, target in zip(x.tolist(), y.tolist(), strict=True):
        if target[0] >= 0:
            found.append(PromptExample([begin], _text(target, end)))
            continue
        for place, token in enumerate(target):
            if token >= 0 > target[place - 1]:
                first = max(i for i in range(place + 1) if read[i] == begin or i == 0)
                found.append(PromptExample(read[first : place + 1], _text(target[place:], end)))
    return found


def _text(target: list[int], end: int) -> list[int]:
    """Tokens up to the first end, or the first that is not scored."""
    for place, token in enumerate(target):
        if token < 0 or token == end:
            return target[: place + (token == end)]
    return target


def complete(
    model: IncrementalDecoder,
    prompts: Sequence[list[int]],
    sampling: SamplingParams,
    end: int,
    limit: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> list[list[int]]:
    """What a model writes after each prompt, with the end token if it comes to one.

    Args:
        model: writes.
        prompts: tokens.
        sampling: how each token is chosen.
        end: the token that ends a text.
        limit: most tokens; never more than the model's context has room for after the longest prompt.
        generator: source of randomness.
        device: of the model.
    """
    limit = int(min(limit, model.context - max(map(len, prompts)) + 1))  # a state has no end: infinite
    blocks: list[Tensor] = []
    written, ended = 0, torch.zeros(len(prompts), dtype=torch.bool, device=device)
    if limit < 1:
        return [[] for _ in prompts]
    for tokens, _ in sample_tokens(
        model, prompts, sampling, generator=generator, every=min(BLOCK, limit), device=device
    ):
        blocks.append(tokens)
        written += tokens.shape[1]
        ended |= (tokens == end).any(1)
        if written >= limit or bool(ended.all()):
            break
    rows = torch.cat(blocks, 1)[:, :limit].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def rows(prompts: Sequence[list[int]], answers: Sequence[list[int]], end: int) -> tuple[Tensor, Tensor]:
    """A batch of kind `tokens` whose answers are scored: x and y (B, T), the shorter rows padded on the right."""
    texts = [torch.tensor(prompt + answer) for prompt, answer in zip(prompts, answers, strict=True)]
    x = pad_sequence([text[:-1] for text in texts], batch_first=True, padding_value=end)
    y = pad_sequence([text[1:] for text in texts], batch_first=True, padding_value=ABSENT)
    begins = torch.tensor([len(prompt) - 1 for prompt in prompts])
    return x, y.masked_fill(torch.arange(y.shape[1]) < begins[:, None], ABSENT)
