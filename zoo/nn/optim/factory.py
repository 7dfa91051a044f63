"""Build an optimizer from settings."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.nn.optim.base import decayed_groups
from zoo.nn.optim.muon import Muon

OptimizerKind = Literal["muon", "adamw"]


def zero_grad_fast(optimizer: torch.optim.Optimizer) -> None:
    """Forget all gradients of an optimizer's weights, as its `zero_grad` does, which a profiler's record surrounds."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = None


def match_state_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay an optimizer's state out in memory as its weights are.

    Adam's one kernel reads both in the order in which they lie there, and is silently wrong where these differ: in a
    checkpoint of a time when the weights had another layout.
    """
    for p, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == p.shape and value.stride() != p.stride():
                state[name] = torch.empty_like(p, dtype=value.dtype).copy_(value)


def make_optimizer(
    parameters: Iterable[nn.Parameter], blocks: nn.Module, settings: Mapping[str, Any], fused: bool = True
) -> torch.optim.Optimizer:
    """What language models train with: the settings are `optimizer`, `lr`, `muon_lr`, `betas` and `weight_decay`.

    Args:
        parameters: all of them.
        blocks: the part whose matrices Muon takes; the rest, and with "adamw" everything, goes to AdamW, which decays
            matrices and tables alone.
        settings: a model's hyperparameters.
        fused: let AdamW do its step in one kernel, which a loss scaler does not allow.
    """
    everything, betas = list(parameters), tuple(settings["betas"])
    if settings["optimizer"] == "muon":
        held = {id(p) for p in blocks.parameters() if p.ndim == 2}
        return Muon(
            [p for p in everything if id(p) in held],
            [p for p in everything if id(p) not in held],
            lr=settings["muon_lr"],
            adamw_lr=settings["lr"],
            weight_decay=settings["weight_decay"],
            betas=betas,
        )
    groups = decayed_groups(everything, settings["weight_decay"])
    return torch.optim.AdamW(groups, settings["lr"], betas, weight_decay=settings["weight_decay"], fused=fused)
