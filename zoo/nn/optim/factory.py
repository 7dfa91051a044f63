"""Helpers for torch's optimizers."""

import torch
from torch import Tensor


def zero_grad_fast(optimizer: torch.optim.Optimizer) -> None:
    """Set all gradients to None, like `optimizer.zero_grad()` without the profiler's record function."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = None


def match_state_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give the state of an optimizer the memory layout of its weights.

    Fused Adam reads both in storage order, and is silently wrong if the strides differ. A checkpoint can have states of
    an older layout.
    """
    for p, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == p.shape and value.stride() != p.stride():
                state[name] = torch.empty_like(p, dtype=value.dtype).copy_(value)
