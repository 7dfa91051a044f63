"""A text or an image that a model is conditioned on, other than a class label."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.space import Space
from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.base import encode_texts, loads


class GivenCondition:
    """Checks of the condition of a `Model`; its base classes come after this one."""

    given: Space | None = None  # what the network is conditioned on; None for nothing, or for class labels
    conditional: bool
    device: Any
    resolve_labels: Callable[[int, Tensor | None, torch.Generator | None], Tensor]

    def check_condition(self, condition: Tensor | None) -> None:
        """Refuse a condition that the model does not have."""
        if self.given is None:
            super().check_condition(condition)  # type: ignore[misc]
        elif condition is not None:
            self.given.validate(condition)

    def resolve_condition(self, n: int, condition: Tensor | None, generator: torch.Generator | None) -> Tensor | None:
        """Class labels (n,), random for None; or texts or images (n, ...), left out for None.

        Raises:
            DataError: a condition that does not fit.
        """
        if self.conditional:
            return self.resolve_labels(n, condition, generator)
        self.check_condition(condition)
        if condition is not None and len(condition) != n:
            raise DataError(f"condition: {len(condition)} for {n} samples. Give one for each.")
        return None if condition is None else condition.to(self.device)

    def text_condition(self, texts: Sequence[str]) -> Tensor:
        """Texts -> tokens (n, T) for `sample`, of a model that is conditioned on texts.

        Raises:
            DataError: of one that is not, or a text that is too long.
        """
        if not isinstance(self.given, Tokens):
            raise DataError(f"text={texts[0]!r}: the model is not conditioned on texts. Leave it out.")
        return encode_texts(loads(self.given.tokenizer), texts, self.given.length)


def rows_without_condition(n: int, share: float, device: Any) -> Tensor:
    """Mark those of n rows in random order that are trained without their condition, for guidance: bool (n,).

    They are as many as the share, at least one, and evenly spaced. Times of a batch are stratified in the order of its
    rows. So neighbouring rows would learn nearly the same time.
    """
    count = max(1, round(share * n))
    return torch.arange(n, device=device) * count % n < count
