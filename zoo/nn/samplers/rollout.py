"""Prompts and answers: extracted from a batch, completed by a model, and collated into a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from zoo.core.spaces import ABSENT
from zoo.nn.samplers.autoregressive import BLOCK_SIZE, IncrementalDecoder, sample_tokens
from zoo.nn.samplers.sampling_params import SamplingParams


@dataclass(frozen=True)
class PromptExample:
    """A prompt and its reference answer.

    Args:
        prompt: token ids, from the one that starts a text.
        answer: token ids, with the end token.
    """

    prompt: list[int]
    answer: list[int]


def prompt_examples(x: Tensor, y: Tensor, begin: int, end: int, *, packed: bool = True) -> list[PromptExample]:
    """Extract the prompts of a token batch, x and y (B, T): the tokens before the ones that are scored.

    A packed row has several prompts. So does a chat, in which the prompt of an answer is all that is before it. If all
    tokens are scored, the prompt is the start token alone, and the answer is the text after the first token.

    Args:
        x: input ids.
        y: target ids; negative ones are not scored.
        begin: the token before a text.
        end: the token after a text.
        packed: `begin` separates rows, wherever it occurs; else a row of the batch has one text.
    """
    examples = []
    for read, target in zip(x.tolist(), y.tolist(), strict=True):
        if target[0] >= 0:
            examples.append(PromptExample([begin], _text(target, end)))
            continue
        for position, token in enumerate(target):
            if token >= 0 > target[position - 1]:
                first = max(i for i in range(position + 1) if i == 0 or (packed and read[i] == begin))
                examples.append(PromptExample(read[first : position + 1], _text(target[position:], end)))
    return examples


def _text(target: list[int], end: int) -> list[int]:
    """Return the tokens up to the first end token, or before the first that is not scored."""
    for position, token in enumerate(target):
        if token < 0 or token == end:
            return target[: position + (token == end)]
    return target


def complete(
    model: IncrementalDecoder,
    prompts: Sequence[list[int]],
    sampling: SamplingParams,
    ends: Sequence[int],
    limit: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> list[list[int]]:
    """Sample one completion per prompt, up to and with the first token that ends a text.

    Args:
        model: predicts the next token.
        prompts: token ids.
        sampling: sampling options.
        ends: the tokens that end a text.
        limit: maximum number of new tokens, reduced to the context left after the longest prompt.
        generator: source of randomness.
        device: device of the model.
    """
    limit = int(min(limit, model.context - max(map(len, prompts)) + 1))  # the context may be infinite
    blocks: list[Tensor] = []
    last = torch.tensor(list(ends), device=device)
    n_sampled, finished = 0, torch.zeros(len(prompts), dtype=torch.bool, device=device)
    if limit < 1:
        return [[] for _ in prompts]
    for tokens, _ in sample_tokens(
        model, prompts, sampling, generator=generator, block_size=min(BLOCK_SIZE, limit), device=device
    ):
        blocks.append(tokens)
        n_sampled += tokens.shape[1]
        finished |= torch.isin(tokens, last).any(1)
        if n_sampled >= limit or bool(finished.all()):
            break
    rows = torch.cat(blocks, 1)[:, :limit].tolist()
    return [row[: next((i + 1 for i, token in enumerate(row) if token in ends), None)] for row in rows]


def collate_examples(prompts: Sequence[list[int]], answers: Sequence[list[int]], end: int) -> tuple[Tensor, Tensor]:
    """Collate to a token batch whose answers are scored: x and y (B, T), padded on the right."""
    texts = [torch.tensor(prompt + answer) for prompt, answer in zip(prompts, answers, strict=True)]
    x = pad_sequence([text[:-1] for text in texts], batch_first=True, padding_value=end)
    y = pad_sequence([text[1:] for text in texts], batch_first=True, padding_value=ABSENT)
    starts = torch.tensor([len(prompt) - 1 for prompt in prompts])
    return x, y.masked_fill(torch.arange(y.shape[1]) < starts[:, None], ABSENT)
