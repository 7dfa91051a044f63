"""LSTM under autocast on every processor."""

from typing import Any

import torch
from torch import nn


class LSTM(nn.LSTM):
    """`nn.LSTM`, in float32 on processors whose oneDNN has no bfloat16.

    There, autocast makes the module of torch 2.14 and 2.15 fail: "could not create a primitive descriptor".
    """

    def forward(self, x: Any, state: Any = None) -> Any:
        """Inputs (B, T, D), or a packed sequence, and states of the cells -> outputs and the last states."""
        if x.data.is_cuda or not torch.is_autocast_enabled("cpu") or has_bfloat16():
            return super().forward(x, state)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.to(torch.float32), state and tuple(part.float() for part in state))


def has_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this processor."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
