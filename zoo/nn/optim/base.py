"""What every registered optimizer has: settings, a schedule, and a method that builds torch's optimizer.

    @register("optimizer", "mine")
    @dataclass(kw_only=True)
    class MyConfig(OptimizerConfig):
        momentum: Fraction = 0.9

        def build(self, groups, *, hidden=(), fused=False):
            return MyOptimizer(groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

Then `python train.py model/optimizer=mine model.optimizer.momentum=0.5`.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor, nn

from zoo.core.signature import Count, NonNegative, Positive
from zoo.nn.optim.lr_schedule import Schedule, lr_factor

Groups = list[dict[str, Any]]  # torch's parameter groups: "params", and "lr" or "weight_decay" where they differ


@dataclass(kw_only=True)
class OptimizerConfig:
    """Settings of an optimizer and of its learning rate over the training.

    Args:
        lr: learning rate after the warm-up.
        weight_decay: strength of the weight decay.
        schedule: of the learning rate: constant, linear or cosine to zero, or wsd (warm-up, stable, decay).
        warmup: batches over which the learning rate rises.
        decay: share of the training over which the rate of schedule=wsd falls to zero.
    """

    lr: Positive = 1e-3
    weight_decay: NonNegative = 0.0
    schedule: Schedule = "constant"
    warmup: Count = 0
    decay: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.2

    def build(self, groups: Groups, *, hidden: Collection[Tensor] = (), fused: bool = False) -> torch.optim.Optimizer:
        """The optimizer.

        Args:
            groups: torch's parameter groups; one without "lr" or "weight_decay" takes those of the settings.
            hidden: weights of hidden layers, for optimizers that treat matrices apart.
            fused: may one kernel do the step? A loss scaler does not allow it.
        """
        raise NotImplementedError

    def lr_factor(self, step: int, total: int) -> float:
        """Factor on the learning rate after `step` of `total` batches."""
        return lr_factor(step, total, self.schedule, self.warmup, decay=self.decay)


def decayed_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> Groups:
    """Groups in which matrices, tables and kernels decay, and gains and biases do not."""
    everything = list(parameters)
    if not weight_decay:
        return [{"params": everything}]
    decayed = {"params": [p for p in everything if p.ndim >= 2]}
    others = {"params": [p for p in everything if p.ndim < 2], "weight_decay": 0.0}
    return [group for group in (decayed, others) if group["params"]]
