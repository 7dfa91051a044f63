"""A moving average of a network's weights, measured in images."""

import copy
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class EMA(nn.Module):
    """A copy of a network whose parameters follow it with a half-life counted in samples, not in steps.

    After `half_life` samples the copy has gone half the way to a network that stands still, whatever the
    batch size (Karras et al. 2019, 1912.04958). Parameters are averaged; buffers, such as batch statistics,
    are copied. The copy is always in evaluation mode, needs no gradient, and is part of the state_dict.

    Args:
        network: what to follow; it is copied, not kept.
        half_life: in samples; 0 copies the network at every update.
        ramp_up: the half-life is at most this share of the samples seen so far, so that the random first
            weights are forgotten early; 0 switches that off.
    """

    seen: Tensor

    def __init__(self, network: nn.Module, half_life: float, ramp_up: float = 0.05) -> None:
        super().__init__()
        self.half_life, self.ramp_up = half_life, ramp_up
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # on the device: no sync in a training step
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, *args: Tensor) -> Tensor:
        """What the averaged network gives."""
        return self.average(*args)

    @torch.no_grad()
    def update(self, network: nn.Module, samples: int) -> None:
        """Follow the network, `samples` samples after the last update."""
        self.seen += samples
        half_life = torch.full_like(self.seen, self.half_life, dtype=torch.float32)
        if self.ramp_up:
            half_life = torch.minimum(half_life, self.seen * self.ramp_up)
        rate = 1 - torch.exp2(-samples / half_life)  # 1 where the half-life is zero
        for mean, live in zip(self.average.parameters(), network.parameters(), strict=True):
            mean.lerp_(live, rate.to(mean.dtype))
        buffers = dict(network.named_buffers())
        for name, copied in self.average.named_buffers():
            if "parametrizations." not in name:
                copied.copy_(buffers[name])
        self._normalise()

    def _normalise(self, iterations: int = 5) -> None:
        """Keep the singular vectors of spectral normalisation at the averaged weights.

        Vectors of the live weights, or averages of them, leave the copy with a largest singular value above
        one. Reading a parametrised weight in training mode continues the power iteration.
        """
        for module in self.average.modules():
            if parametrize.is_parametrized(module):
                weights: nn.ModuleDict = module.parametrizations  # type: ignore[assignment]
                weights.train()
                for name in [*weights] * iterations:
                    getattr(module, name)
                weights.eval()
