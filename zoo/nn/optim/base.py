"""Base class of registered optimizers: settings, a schedule, and a method that builds torch's optimizer.

    @register("optimizer", "mine")
    @dataclass(kw_only=True)
    class MyConfig(OptimizerConfig):
        momentum: Fraction = 0.9

        def build(self, groups, *, hidden=(), fused=False):
            return MyOptimizer(groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

Then `python train.py model/optimizer=mine model.optimizer.momentum=0.5`.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

import torch
from annotated_types import Interval
from torch import Tensor, nn

from zoo.core import registry
from zoo.core.signature import Count, NonNegative, Positive
from zoo.nn.optim.lr_schedule import Schedule, lr_factor

log = logging.getLogger(__name__)
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

    whole_matrices: ClassVar[bool] = False  # whether a step needs whole matrices, which FSDP shards

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


def build_config(config: str | Mapping[str, Any], where: str = "model.optimizer") -> OptimizerConfig:
    """Build a registered optimizer's settings, without those that a recipe has set for another optimizer.

    A recipe for Adam may set betas; `model/optimizer=sgd` keeps its learning rate and leaves the betas out.

    Raises:
        ZooError: an unknown optimizer, a setting that none has, or a value outside its bounds.
    """
    if isinstance(config, Mapping) and config.get("name") in registry.names("optimizer"):
        known = {
            name: {s.name for s in registry.peek("optimizer", name).settings} for name in registry.names("optimizer")
        }
        foreign = set(config) - {"name"} - known[config["name"]]
        if foreign and foreign <= set().union(*known.values()):
            log.warning("%s: %s has no %s; left out.", where, config["name"], ", ".join(sorted(foreign)))
            config = {key: value for key, value in config.items() if key not in foreign}
    return cast(OptimizerConfig, registry.build("optimizer", config, where=where))


def decayed_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> Groups:
    """Groups in which matrices, tables and kernels decay, and gains and biases do not."""
    everything = list(parameters)
    if not weight_decay:
        return [{"params": everything}]
    decayed = {"params": [p for p in everything if p.ndim >= 2]}
    others = {"params": [p for p in everything if p.ndim < 2], "weight_decay": 0.0}
    return [group for group in (decayed, others) if group["params"]]
