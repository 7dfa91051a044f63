"""Prompt cache: a prompt that begins as the last text did is evaluated only from where the two differ."""

from typing import Any, Protocol

from torch import Tensor

from zoo.nn.samplers.autoregressive import IncrementalDecoder


class RewindableDecoder(IncrementalDecoder, Protocol):
    """A decoder that reads several tokens at once, and removes the last ones."""

    def extend(self, tokens: Tensor, state: Any) -> Tensor:
        """Append tokens (B, T) to the state: logits after each (B, T, V)."""

    def rewind(self, state: Any, n: int) -> None:
        """Remove the last n tokens of every row."""


class PromptCache:
    """An `IncrementalDecoder` that keeps the state of the last text. For one text at a time.

    Args:
        model: a decoder that can remove its last tokens.
    """

    def __init__(self, model: RewindableDecoder) -> None:
        self.model, self.context = model, model.context
        self.tokens: list[int] = []  # those that the state holds; none while it changes, so an interruption empties it
        self.state: Any = None

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Any]:
        """Process prompts (B, T) with `padding` (B,) tokens before them: next logits (B, V), and a state."""
        known, self.tokens = self.tokens, []
        row = tokens[0].tolist()
        both = list(zip(known, row, strict=False))
        shared = next((i for i, (a, b) in enumerate(both) if a != b), len(both))
        shared = min(shared, len(row) - 1)  # the last token gives the logits
        if len(tokens) != 1 or padding is not None or shared <= 0:
            logits, self.state = self.model.prefill(tokens, padding)
        else:
            self.model.rewind(self.state, len(known) - shared)
            logits = self.model.extend(tokens[:, shared:], self.state)[:, -1]
        self.tokens = row if len(tokens) == 1 and padding is None else []
        return logits, self.state

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """Append one token per row (B,) to the state: next logits (B, V)."""
        known, self.tokens = self.tokens, []
        logits = self.model.step(tokens, state)
        self.tokens = [*known, int(tokens[0])] if known else []
        return logits

    def reorder(self, state: Any, rows: Tensor) -> None:
        """Replace row b of the state by row `rows[b]`."""
        self.tokens = []
        self.model.reorder(state, rows)
