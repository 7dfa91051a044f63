"""Lion: the sign of a momentum as the update."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Betas, Positive
from zoo.nn.optim.base import Groups, OptimizerConfig


class Lion(torch.optim.Optimizer):
    """Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2), with decoupled weight decay.

    Args:
        groups: torch's parameter groups.
        lr: size of every step, in every weight.
        betas: of the mean whose sign is the update, and of the momentum that is kept.
        weight_decay: decoupled.
    """

    def __init__(self, groups: Any, lr: float, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0):
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of everything that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            grads, (beta1, beta2) = [p.grad for p in params], group["betas"]
            momenta = [self.state[p]["momentum"] for p in params]
            updates = torch._foreach_lerp(momenta, grads, 1 - beta1)
            torch._foreach_sign_(updates)
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, updates, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, grads, 1 - beta2)
        return loss


@register("optimizer", "lion")
@dataclass(kw_only=True)
class LionConfig(OptimizerConfig):
    """Lion: steps of one size by the sign of a momentum; a third to a tenth of AdamW's learning rate suits it.

    Args:
        betas: of the mean whose sign is the update, and of the momentum that is kept.
    """

    lr: Positive = 1e-4
    betas: Betas = (0.9, 0.99)

    def build(self, groups: Groups, *, hidden: Collection[Tensor] = (), fused: bool = False) -> torch.optim.Optimizer:
        """The optimizer."""
        beta1, beta2 = self.betas
        return Lion(groups, self.lr, (beta1, beta2), self.weight_decay)
