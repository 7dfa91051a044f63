"""Weights of linear layers as 4-bit integers: half the memory of 8 bits, for generation on processors.

A group of columns of a row has a scale and a zero point (as in Frantar et al. 2022, 2210.17323, section 4, without its
correction of errors). Activations are bfloat16.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.blocks.int8 import Int8Linear

GROUP = 32  # columns, the smallest group of the kernel
LEVELS = 15
MIDDLE = 8  # the kernel computes (step - 8) scale + zero
PACK: Any = getattr(torch, "_convert_weight_to_int4pack_for_cpu", None)  # private names of torch:
KERNEL: Any = getattr(torch, "_weight_int4pack_mm_for_cpu", None)  # `forward` has another way
KERNEL_ROWS = 16  # heights are multiples of it


class Int4Linear(nn.Module):
    """A linear layer with a 4-bit weight, which cannot be trained.

    Args:
        layer: the layer to convert; its width is a multiple of `GROUP`, its height of `KERNEL_ROWS`.
    """

    packed: Tensor  # two steps a byte: uint8 (out, in / 2), in the order of the kernel where `fast`
    scale_and_zero: Tensor  # bfloat16 (in / GROUP, out, 2)
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        steps, scale_and_zero = quantized(layer.weight.detach().float())
        self.fast = KERNEL is not None and PACK is not None and steps.device.type == "cpu"
        packed = PACK(steps.int(), 1) if self.fast else steps[:, ::2] | steps[:, 1::2] << 4
        self.register_buffer("packed", packed)
        self.register_buffer("scale_and_zero", scale_and_zero)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the type of x."""
        rows = x.flatten(0, -2).bfloat16()  # (N, in)
        if self.fast:
            out = KERNEL(rows.contiguous(), self.packed, GROUP, self.scale_and_zero)
        else:
            steps = torch.stack((self.packed & LEVELS, self.packed >> 4), -1).flatten(1)
            out = F.linear(rows, dequantized(steps, self.scale_and_zero).bfloat16())
        out = out.to(x.dtype).unflatten(0, x.shape[:-1])
        return out if self.bias is None else out + self.bias.to(x.dtype)


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) as steps from 0 to 15, uint8; and scales and zero points, bfloat16 (in / GROUP, out, 2).

    A weight is off by at most half a scale, beside the rounding of scale and zero point to bfloat16.
    """
    groups = weight.unflatten(1, (-1, GROUP))  # (out, in / GROUP, GROUP)
    low, high = groups.amin(2), groups.amax(2)
    scale = ((high - low) / LEVELS).clamp(min=torch.finfo(torch.bfloat16).tiny).bfloat16()
    zero = (low + MIDDLE * scale.float()).bfloat16()
    steps = (groups - zero.float()[..., None]) / scale.float()[..., None] + MIDDLE
    steps = steps.round().clamp(0, LEVELS).to(torch.uint8).flatten(1)
    return steps, torch.stack((scale, zero), -1).transpose(0, 1).contiguous()


def dequantized(steps: Tensor, scale_and_zero: Tensor) -> Tensor:
    """Inverse of `quantized`, as float32 (out, in)."""
    scale, zero = scale_and_zero.float().transpose(0, 1).unbind(-1)  # (out, in / GROUP)
    groups = steps.float().unflatten(1, (-1, GROUP)) - MIDDLE
    return (groups * scale[..., None] + zero[..., None]).flatten(1)


def int4_or_int8(layer: nn.Linear) -> nn.Module:
    """A layer with 4-bit weights; with 8-bit ones where the width or height has no groups."""
    fits = layer.in_features % GROUP == 0 and layer.out_features % KERNEL_ROWS == 0
    return Int4Linear(layer) if fits else Int8Linear(layer)
