"""A moving average of a network's weights, measured in images."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class EMA(nn.Module):
    """A copy of a network whose parameters follow it with a half-life counted in samples, not in steps.

    After `half_life` samples the copy has gone half the way to a network that stands still, whatever the
    batch size (Karras et al. 2019, 1912.04958). Parameters are averaged; buffers, such as batch statistics,
    are copied. The copy is always in evaluation mode, needs no gradient, and is part of the state_dict.

    Args:
        network: to follow; it is copied.
        half_life: in samples; 0 copies the network at every update.
        ramp_up: largest half-life as a share of the samples so far, so that the initial weights decay early; 0 is off.
    """

    seen: Tensor

    def __init__(self, network: nn.Module, half_life: float, ramp_up: float = 0.05) -> None:
        super().__init__()
        self.half_life, self.ramp_up = half_life, ramp_up
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # on the device: no sync in a training step
        # Caches between updates; modules in a list are not submodules.
        self.known: int | None = None  # `seen` on the CPU
        self.pairs: tuple[Any, ...] | None = None
        self.normalised: list[nn.Module] | None = None
        self.register_load_state_dict_post_hook(EMA.forget)
        self.eval()

    @staticmethod
    def forget(module: nn.Module, _: Any) -> None:
        """Reset the cached `seen` after loading weights."""
        assert isinstance(module, EMA)
        module.known = None

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, *args: Any) -> Tensor:
        """Output of the averaged network."""
        return self.average(*args)

    @torch.no_grad()
    def update(self, network: nn.Module, samples: int) -> None:
        """Follow the network, `samples` samples after the last update."""
        self.seen += samples
        self.known = int(self.seen) if self.known is None else self.known + samples  # waits for the device once
        half_life = min(self.half_life, self.known * self.ramp_up) if self.ramp_up else self.half_life
        if self.pairs is None or self.pairs[0] is not network:
            self.pairs = (network, *self._paired(network))
        _, means, lives, copies, originals = self.pairs
        torch._foreach_lerp_(means, lives, 1 - 2 ** (-samples / half_life) if half_life else 1.0)
        if copies:
            torch._foreach_copy_(copies, originals)
        self._normalise()

    def _paired(self, network: nn.Module) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Averaged parameters and their originals; copied buffers and their originals."""
        means: list[Tensor] = list(self.average.parameters())
        lives: list[Tensor] = list(network.parameters())
        if len(means) != len(lives):
            raise ValueError("the network has other parameters than the averaged one.")
        buffers = dict(network.named_buffers())
        names = [name for name, _ in self.average.named_buffers() if "parametrizations." not in name]
        copied = dict(self.average.named_buffers())
        return means, lives, [copied[name] for name in names], [buffers[name] for name in names]

    def _normalise(self, iterations: int = 5) -> None:
        """Keep the singular vectors of spectral normalisation at the averaged weights.

        With the vectors of the original weights, or averages of them, the largest singular value of the copy exceeds 1.
        Reading a parametrised weight in training mode continues the power iteration.
        """
        if self.normalised is None:
            self.normalised = [module for module in self.average.modules() if parametrize.is_parametrized(module)]
        for module in self.normalised:
            weights: nn.ModuleDict = module.parametrizations  # type: ignore[assignment]
            weights.train()
            for name in [*weights] * iterations:
                getattr(module, name)
            weights.eval()
