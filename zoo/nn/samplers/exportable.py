"""Exportable samplers: a deterministic function of random inputs, and the distributions of these inputs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Distribution = Literal["normal", "uniform", "class", "token"]


@dataclass(frozen=True)
class InputSpec:
    """Name, distribution and shape of one input tensor.

    Args:
        name: input name in exported files.
        distribution: "normal" and "uniform" (in [0, 1)) are float32 (B, *size); "class" is int64 (B,) and "token" int64
            (B, T), each below `high`.
        size: shape of one sample; for tokens the maximum length of T.
        high: exclusive upper bound of ids.
    """

    name: str
    distribution: Distribution
    size: tuple[int, ...] = ()
    high: int = 0

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Sample n rows on the CPU; tokens have maximum length."""
        if self.distribution == "normal":
            return torch.randn(n, *self.size, generator=generator)
        if self.distribution == "uniform":
            return torch.rand(n, *self.size, generator=generator)
        return torch.randint(self.high, (n, *self.size), generator=generator)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for the metadata of an exported file."""
        return {**asdict(self), "size": list(self.size)}


class ExportableSampler(nn.Module):
    """The deterministic part of a sampler: random inputs -> data, or tokens -> logits of the next ones.

    `torch.export` and ONNX can represent it. `module(*module.draw(n, generator))` equals the model's `sample(n,
    generator=generator)`. A module that predicts tokens, (B, T) -> (B, T, V), is called autoregressively, starting from
    one of `start_tokens`.

    Args:
        function: the deterministic computation.
        inputs: its inputs, in the order in which the model's `sample` draws them.
        *parts: modules that the function uses; only their weights are exported.
        start_tokens: valid first tokens, if it predicts tokens.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        inputs: Sequence[InputSpec],
        *parts: nn.Module,
        start_tokens: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.function, self.inputs, self.start_tokens = function, tuple(inputs), tuple(start_tokens)
        self.parts = nn.ModuleList(parts)

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Sample one tensor per input, n rows each."""
        return tuple(i.draw(n, generator) for i in self.inputs)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs (B, ...) -> data (B, *shape), or logits (B, T, V)."""
        return self.function(*inputs)
