"""Changes of the logits of one row that depend on its tokens so far."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.nn.samplers.constraint import Vocabulary, token_constraint

if TYPE_CHECKING:
    from zoo.nn.samplers.sampling_params import SamplingParams


RULES = (
    "frequency_penalty",
    "presence_penalty",
    "no_repeat_ngram_size",
    "logit_bias",
    "regex",
    "choices",
    "json_schema",
)  # options that need the tokens of a row


def _is_number(value: object) -> bool:
    """Whether a value is a finite number, or the text of one."""
    try:
        return math.isfinite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


class LogitRules:
    """Penalties, biases, n-grams and constraints of a row, applied in this order before the temperature.

    Args:
        params: sampling parameters.
        prompt: tokens before the generated ones.
        vocab_size: number of logits.
        begin: first token of a prompt that is not a part of the text.
        vocabulary: of a text model, for constraints.
        device: of the logits.

    Raises:
        ConfigError: a token of `logit_bias` out of range, or a constraint without a vocabulary.
    """

    def __init__(
        self,
        params: "SamplingParams",
        prompt: Sequence[int],
        vocab_size: int,
        begin: int | None,
        vocabulary: Vocabulary | None,
        device: torch.device | str,
    ) -> None:
        self.params, self.vocab_size, self.device = params, vocab_size, device
        text = list(prompt[1:] if prompt[0] == begin else prompt)
        self.tokens = text  # of the row, for n-grams
        self.seen: Tensor | None = None  # (V,) for the repetition penalty
        self.counts: Tensor | None = None  # (V,) of generated tokens
        self.bias: Tensor | None = None  # (V,)
        if params.repetition_penalty != 1:
            self.seen = torch.zeros(vocab_size, dtype=torch.bool)
            self.seen[[t for t in text if t < vocab_size]] = True
            self.seen = self.seen.to(device)
        if params.frequency_penalty or params.presence_penalty:
            self.counts = torch.zeros(vocab_size, device=device)
        if params.logit_bias:
            self.bias = torch.zeros(vocab_size)
            for token, value in params.logit_bias.items():
                if not str(token).lstrip("-").isdecimal() or not _is_number(value):
                    raise ConfigError(
                        f"logit_bias={{{token}: {value}}}: not a token id and a finite number. Correct it."
                    )
                if not 0 <= int(token) < vocab_size:
                    raise ConfigError(f"logit_bias={{{token}: {value}}}: not a token. Choose 0 to {vocab_size - 1}.")
                self.bias[int(token)] += float(value)
            self.bias = self.bias.to(device)
        self.constraint, self.state = None, None
        if params.pattern:
            if vocabulary is None:
                raise ConfigError("regex, choices, json_schema: this model does not generate text. Leave them out.")
            self.constraint = token_constraint(params.pattern, vocabulary)
            self.state = self.constraint.start

    def apply(self, logits: Tensor) -> Tensor:
        """Logits (V,) after all rules."""
        params = self.params
        if self.seen is not None:
            penalty = params.repetition_penalty
            logits = torch.where(self.seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
        if self.counts is not None:
            logits = logits - params.frequency_penalty * self.counts - params.presence_penalty * (self.counts > 0)
        if self.bias is not None:
            logits = logits + self.bias
        if repeated := self._completing():
            rest = logits.index_fill(0, torch.tensor(repeated, device=self.device), -torch.inf)
            logits = rest if rest.isfinite().any() else logits  # every token would repeat one
        if self.constraint is not None and self.state is not None:
            allowed = [*self.constraint.allowed(self.state)]
            allowed += self.constraint.ends if self.constraint.accepts(self.state) else ()
            keep = torch.tensor([token for token in allowed if token < len(logits)], device=self.device)
            masked = torch.full_like(logits, -torch.inf).index_copy(0, keep, logits[keep])
            if not masked.isfinite().any():  # an n-gram or a bias excludes all that the constraint allows
                masked = torch.full_like(logits, -torch.inf).index_fill(0, keep, 0.0)
            logits = masked
        return logits

    def record(self, token: int) -> None:
        """Take note of a generated token."""
        self.tokens.append(token)
        if self.seen is not None:
            self.seen[token] = True
        if self.counts is not None:
            self.counts[token] += 1
        if self.constraint is not None and self.state is not None:
            self.state = self.constraint.allowed(self.state).get(token)  # None after the end

    def _completing(self) -> list[int]:
        """Tokens that would complete an n-gram which the row already has."""
        n = self.params.no_repeat_ngram_size
        if not n or len(self.tokens) < n:
            return []
        last = self.tokens[len(self.tokens) - n + 1 :]
        starts = range(len(self.tokens) - n + 1)
        found = {self.tokens[i + n - 1] for i in starts if self.tokens[i : i + n - 1] == last}
        return sorted(token for token in found if token < self.vocab_size)
