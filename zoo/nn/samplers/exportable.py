"""Exportable samplers: a deterministic function of random inputs, and the distributions of these inputs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.nn.distributions.mixtures import categorical_from_uniform
from zoo.nn.samplers.noise import fork, normal, step_noise

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
        shares: probability of each class; empty if all are equally likely.
        by_step: the first axis of `size` is that of steps, each of which has its own generator; see `step_noise`.
    """

    name: str
    distribution: Distribution
    size: tuple[int, ...] = ()
    high: int = 0
    shares: tuple[float, ...] = ()
    by_step: bool = False

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Sample n rows on the CPU; tokens have maximum length."""
        if self.by_step:
            return torch.stack([step_noise(generator, k, n, *self.size[1:]) for k in range(self.size[0])], 1)
        if self.distribution == "normal":
            return normal(n, *self.size, generator=generator)
        if self.distribution == "uniform":
            return torch.rand(n, *self.size, generator=generator)
        if self.distribution == "class":
            return categorical_from_uniform(torch.tensor(self.class_shares()), torch.rand(n, generator=generator))
        return torch.randint(self.high, (n, *self.size), generator=generator)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for the metadata of an exported file."""
        values = {key: value for key, value in asdict(self).items() if key != "by_step"}  # the distribution is the same
        return {**values, "size": list(self.size), "shares": self.class_shares()}

    def class_shares(self) -> list[float]:
        """Probability of each class; empty for other distributions."""
        return list(self.shares or [1 / self.high] * self.high) if self.distribution == "class" else []


def draw_inputs(inputs: Sequence[InputSpec], n: int, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
    """Sample one tensor per input on the CPU, n rows each; equal seeds give equal first rows for every n."""
    sources = [generator, *(fork(generator, i.name) for i in inputs[1:])]  # before the first draw
    return tuple(i.draw(n, source) for i, source in zip(inputs, sources, strict=True))


class ExportableSampler(nn.Module):
    """The deterministic part of a sampler: random inputs -> data, or tokens -> logits of the next ones.

    `torch.export` and ONNX can represent it. `module(*module.draw(n, generator))` equals the model's `sample(n,
    generator=generator)`. A module that predicts tokens, (B, T) -> (B, T, V), is called autoregressively, starting from
    one of `start_tokens`.

    Args:
        function: the deterministic computation.
        inputs: its inputs. The model's `sample` draws the first from its generator, and each other one from a fork by
            its name (`zoo.nn.samplers.noise.fork`).
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
        """Sample one tensor per input; see `draw_inputs`."""
        return draw_inputs(self.inputs, n, generator)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Inputs (B, ...) -> data (B, *shape), or logits (B, T, V)."""
        return self.function(*inputs)
