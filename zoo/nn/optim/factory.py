"""Helpers for torch's optimizers."""

import torch
from torch import Tensor


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
