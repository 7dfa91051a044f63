"""Base class of models that fill masks in texts: tokens of texts with masks, and their way back."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.spaces import ABSENT
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import require_tokenizer
from zoo.nn.samplers.logit_rules import RULES
from zoo.nn.samplers.sampling_params import SamplingParams, parse_sampling
from zoo.nn.samplers.text_stream import Completion, TextStreamer

Unmask = Callable[[Tensor], tuple[Tensor, Tensor]]  # tokens (N, T), negative for padding -> filled ones; nats (N,)


class MaskFilling:
    """Fills masks in texts, and continues texts by masks after them.

    A subclass is a `Model` with these attributes.
    """

    mark = "[MASK]"  # one masked token in a text for `fill`
    spec: DataSpec
    tokenizer: Any
    mask_token: int
    registered_name: str
    device: Any

    @property
    def end(self) -> int:
        """Token before and after a text."""
        return self.spec.tokens.vocab_size - 1 if self.tokenizer is None else self.tokenizer.end

    @property
    def max_tokens(self) -> int:
        """Longest row of tokens that the network reads."""
        return self.spec.size

    def fill_masks(self, texts: str | list[str], unmask: Unmask) -> list[str]:
        """Replace each mark in texts by one token.

        Raises:
            ZooError: a text longer than the context, or a model of other data than text.
        """
        tokens, _ = unmask(self.padded(self.read_all(texts)))
        return [self.tokenizer.decode([t for t in row if t >= 0]) for row in tokens.tolist()]

    def continue_texts(
        self,
        prompts: str | list[str],
        max_new_tokens: int | None,
        stop: list[str] | tuple[str, ...],
        beams: int,
        unmask: Unmask,
    ) -> list[Completion]:
        """Append masks to texts, fill them, and cut at the first end token.

        Raises:
            ZooError: a prompt longer than the context, or beam search.
        """
        if beams > 1:
            raise ZooError(f"beams={beams}: {self.registered_name} does not support beam search. Leave it out.")
        after = require_tokenizer(self).affixes[1]
        rows = [row[: len(row) - len(after)] for row in self.read_all(prompts)]
        room = [min(self.max_tokens - len(row) - len(after), max_new_tokens or self.max_tokens) for row in rows]
        asked = [row + [self.mask_token] * more + after for row, more in zip(rows, room, strict=True)]
        special = [] if isinstance(stop, str) else [i for s in stop if (i := self.tokenizer.special_id(s)) is not None]
        tokens, nats = unmask(self.padded(asked))
        done = []
        for row, more, new, score in zip(rows, room, tokens.tolist(), nats.tolist(), strict=True):
            writer = TextStreamer(self.tokenizer.pieces, self.tokenizer.ends, stop, more, special)
            for token in new[len(row) : len(row) + more]:
                if not writer.finish_reason:
                    writer.push(token)
            result = writer.result()
            result.log_prob = score
            done.append(result)
        return done

    def sampling_params(self, options: dict[str, Any], others: Sequence[str] = (), **defaults: Any) -> SamplingParams:
        """Sampling parameters from options.

        Raises:
            ZooError: an unknown option, or one that needs the tokens so far.
        """
        params = parse_sampling(options, others, **defaults)
        if params.repetition_penalty != 1:
            raise ZooError(f"repetition_penalty: {self.registered_name} does not support it. Leave it out.")
        if params.has_rules:
            given = [name for name in RULES if getattr(params, name)]
            raise ZooError(f"{', '.join(given)}: {self.registered_name} does not support it. Leave it out.")
        return params

    def read(self, text: str) -> list[int]:
        """Tokens of a text, with the special ones around it and the masks in it."""
        before, after = require_tokenizer(self).affixes
        ids = list[int]()
        for number, part in enumerate(text.split(self.mark)):
            ids += [self.mask_token] * (number > 0) + self.tokenizer.encode(part)
        return [*before, *ids, *after] or [self.tokenizer.begin]

    def read_all(self, texts: str | list[str]) -> list[list[int]]:
        """Tokens of one text or several.

        Raises:
            ZooError: a text longer than the context.
        """
        rows = [self.read(text) for text in ([texts] if isinstance(texts, str) else texts)]
        if (longest := max(map(len, rows), default=0)) > self.max_tokens:
            raise ZooError(
                f"prompt of {longest} tokens: it is longer than the context of {self.max_tokens}. Shorten it."
            )
        return rows

    def padded(self, rows: list[list[int]]) -> Tensor:
        """Rows of unequal length as one tensor (N, T), negative after their ends."""
        width = max(map(len, rows), default=0)
        return torch.tensor([row + [ABSENT] * (width - len(row)) for row in rows], device=self.device).long()


def strip_padding(batch: Batch) -> Tensor:
    """Tokens of a window (B, T), negative after the last scored one."""
    x, y = batch
    return x.masked_fill(~before_padding(y), ABSENT)


def before_padding(y: Tensor) -> Tensor:
    """Positions (B, T) up to the last scored target of each row."""
    return (y >= 0).flip(1).cummax(1).values.flip(1)


def seeded(seed: int | None) -> torch.Generator | None:
    """A generator; None for torch's global one."""
    return None if seed is None else torch.Generator().manual_seed(seed)
