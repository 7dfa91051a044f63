"""A sampler taken apart: the random numbers that it draws, and the function that makes samples of them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Law = Literal["normal", "uniform", "class", "token"]


@dataclass(frozen=True)
class InputSpec:
    """One tensor that a core takes, and what it is drawn from.

    Args:
        name: what it is called in exported files.
        law: "normal" and "uniform" (in [0, 1)) are float32 (B, *size); "class" is int64 (B,) and "token" int64 (B, T),
            each below `high`.
        size: of one sample; of tokens the greatest length, T being free up to it.
        high: identifiers run from 0 to high - 1.
    """

    name: str
    law: Law
    size: tuple[int, ...] = ()
    high: int = 0

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n rows, on the CPU; tokens in full length."""
        if self.law == "normal":
            return torch.randn(n, *self.size, generator=generator)
        if self.law == "uniform":
            return torch.rand(n, *self.size, generator=generator)
        return torch.randint(self.high, (n, *self.size), generator=generator)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the note in an exported file."""
        return {**asdict(self), "size": list(self.size)}


class ExportableSampler(nn.Module):
    """The deterministic part of a sampler: random numbers -> data, or tokens -> logits of the next ones.

    What `torch.export` and ONNX can hold. `core(*core.draw(n, generator))` is `sample(n, generator=generator)` of the
    model that it comes from; a core that predicts tokens, (B, T) -> (B, T, V), is fed with its own choices instead,
    from a token of `begins` on.

    Args:
        function: what is computed, without randomness.
        inputs: what it takes, in the order in which the model's `sample` draws it.
        *parts: modules that the function uses: their weights are exported, and no others.
        begins: tokens that may come first, where the core predicts tokens.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        inputs: Sequence[InputSpec],
        *parts: nn.Module,
        begins: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.function, self.inputs, self.begins = function, tuple(inputs), tuple(begins)
        self.parts = nn.ModuleList(parts)

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """One tensor for each input, n rows each."""
        return tuple(i.draw(n, generator) for i in self.inputs)

    def forward(self, *inputs: Tensor) -> Tensor:
        """(B, ...) each -> data (B, *shape), or logits (B, T, V)."""
        return self.function(*inputs)
