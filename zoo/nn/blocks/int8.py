"""Weights of linear layers as 8-bit integers, for generation on processors.

A step of generation reads every weight once, so its time is that of reading memory. A row of a matrix has one scale,
the largest absolute weight over 127 (Dettmers et al. 2022, 2208.07339, section 2). Activations are bfloat16.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 127
KERNEL: Any = getattr(torch, "_weight_int8pack_mm", None)  # a private name of torch: `forward` has another way
KERNEL_STEP = 32  # widths are multiples of it: with 8, 40, 88 or 90 columns the kernel of torch 2.15 ends the process


class Int8Linear(nn.Module):
    """A linear layer with an 8-bit weight, which cannot be trained.

    Args:
        layer: the layer to convert.
    """

    steps: Tensor  # int8 (out, in)
    scale: Tensor  # float32 (out,)
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        steps, scale = quantized(layer.weight.detach().float())
        self.register_buffer("steps", steps)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The matrix as float32 (out, in)."""
        return self.steps * self.scale[:, None]

    @property
    def fast(self) -> bool:
        """Whether torch's kernel computes the product."""
        return KERNEL is not None and self.steps.device.type == "cpu" and self.steps.shape[1] % KERNEL_STEP == 0

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the type of x."""
        rows = x.flatten(0, -2).bfloat16()  # (N, in)
        if self.fast:
            out = KERNEL(rows.contiguous(), self.steps, self.scale.bfloat16())
        else:
            out = F.linear(rows, self.steps.bfloat16()) * self.scale.bfloat16()
        out = out.to(x.dtype).unflatten(0, x.shape[:-1])
        return out if self.bias is None else out + self.bias.to(x.dtype)


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) as integers of 8 bits, and the scale of each row (out,); off by at most half a scale."""
    scale = weight.abs().amax(1) / LEVELS
    steps = weight / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    return steps.round().clamp(-LEVELS, LEVELS).to(torch.int8), scale


def quantize_linear_layers(network: nn.Module, make: Callable[[nn.Linear], nn.Module] = Int8Linear) -> int:
    """Replace all linear layers of a network, in place; return their number.

    Subclasses of linear layers, such as adapters, embeddings and recurrent layers stay.

    Args:
        network: the network.
        make: makes the quantised layer of a layer.
    """
    found = 0
    for name, child in list(network.named_children()):
        if type(child) is nn.Linear:
            setattr(network, name, make(child))
            found += 1
        else:
            found += quantize_linear_layers(child, make)
    return found
