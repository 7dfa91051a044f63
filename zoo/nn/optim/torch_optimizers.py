"""Torch's own optimizers."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Betas, Fraction, Positive
from zoo.nn.optim.base import Groups, OptimizerConfig


@register("optimizer", "adam")
@dataclass(kw_only=True)
class AdamConfig(OptimizerConfig):
    """Adam (Kingma & Ba 2014, arXiv 1412.6980); its weight decay is a penalty in the gradient.

    Args:
        betas: decay rates of the means of gradients and of their squares.
    """

    betas: Betas = (0.9, 0.999)

    def build(self, groups: Groups, *, hidden: Collection[Tensor] = (), fused: bool = False) -> torch.optim.Optimizer:
        """Torch's Adam."""
        beta1, beta2 = self.betas
        return torch.optim.Adam(groups, self.lr, (beta1, beta2), weight_decay=self.weight_decay, fused=fused)


@register("optimizer", "adamw")
@dataclass(kw_only=True)
class AdamWConfig(OptimizerConfig):
    """AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2017, arXiv 1711.05101).

    Args:
        betas: decay rates of the means of gradients and of their squares.
    """

    betas: Betas = (0.9, 0.999)

    def build(self, groups: Groups, *, hidden: Collection[Tensor] = (), fused: bool = False) -> torch.optim.Optimizer:
        """Torch's AdamW."""
        beta1, beta2 = self.betas
        return torch.optim.AdamW(groups, self.lr, (beta1, beta2), weight_decay=self.weight_decay, fused=fused)


@register("optimizer", "sgd")
@dataclass(kw_only=True)
class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent with momentum.

    Args:
        momentum: decay rate of the sum of gradients; 0 is plain gradient descent.
        nesterov: look ahead along the momentum (Sutskever et al. 2013).
    """

    lr: Positive = 1e-2
    momentum: Fraction = 0.9
    nesterov: bool = False

    def build(self, groups: Groups, *, hidden: Collection[Tensor] = (), fused: bool = False) -> torch.optim.Optimizer:
        """Torch's SGD."""
        sharded = any(hasattr(p, "full_tensor") for group in groups for p in group["params"])  # no kernel for those
        return torch.optim.SGD(
            groups,
            self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov and self.momentum > 0,
            fused=fused and not sharded,
        )
