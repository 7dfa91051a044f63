"""Layers of style-based generators: equalised learning rates, modulated convolutions, exact bilinear resizing."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-8


class EqualizedLinear(nn.Module):
    """Linear layer whose weights are stored with unit variance, and scaled when used (Karras et al. 2017, 1710.10196).

    So Adam, whose steps do not depend on the scale of gradients, trains layers of all widths at one speed.

    Args:
        n_in: inputs.
        n_out: outputs.
        bias: the value that biases begin at.
        speed: factor on the learning rate; the layer begins as with 1.
    """

    def __init__(self, n_in: int, n_out: int, bias: float = 0.0, speed: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / speed)
        self.bias = nn.Parameter(torch.full((n_out,), bias / speed))
        self.gain, self.speed = speed / math.sqrt(n_in), speed

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in) -> (B, n_out)."""
        return F.linear(x, self.weight * self.gain, self.bias * self.speed)


class ModulatedConv(nn.Module):
    """Convolution whose input maps each sample scales by its own style (Karras et al. 2019, arXiv:1912.04958).

    Demodulation divides each output map by the norm of its scaled kernel (section 2.2, equations 1 to 3). So outputs
    keep unit variance at any style. Maps are scaled before and after one shared convolution, which equals one
    convolution per sample with scaled kernels.

    Args:
        n_in: input maps.
        n_out: output maps.
        style_dim: size of the style.
        kernel: side of the kernel, an odd number.
        demodulate: see above; the layers that make colours do not.
    """

    def __init__(self, n_in: int, n_out: int, style_dim: int, kernel: int = 3, demodulate: bool = True) -> None:
        super().__init__()
        self.demodulate, self.gain = demodulate, 1 / math.sqrt(n_in * kernel**2)
        self.affine = EqualizedLinear(style_dim, n_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(n_out, n_in, kernel, kernel))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, n_in, H, W), styles (B, style_dim) -> (B, n_out, H, W)."""
        scale, kernel = self.affine(w), self.weight * self.gain  # (B, n_in), (n_out, n_in, k, k)
        x = F.conv2d(x * scale[:, :, None, None].to(x.dtype), kernel, padding=kernel.shape[-1] // 2)
        if not self.demodulate:
            return x
        squares = scale.float().square() @ kernel.float().square().sum((2, 3)).T  # (B, n_out)
        return x * (squares + EPS).rsqrt()[:, :, None, None].to(x.dtype)


class BilinearResize(nn.Module):
    """Resize maps by bilinear interpolation, as two products with fixed matrices.

    Its gradient is deterministic on every device, unlike that of torch's interpolation.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, size: tuple[int, int], to: tuple[int, int]) -> None:
        super().__init__()
        for name, n, m in zip(("rows", "columns"), size, to, strict=True):
            eye = torch.eye(n)[:, None]  # (n, 1, n): each unit vector as a signal
            weights = F.interpolate(eye, size=m, mode="linear", align_corners=False)[:, 0].T  # (m, n)
            self.register_buffer(name, weights.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> (B, C, *to)."""
        return self.rows.to(x.dtype) @ x @ self.columns.to(x.dtype).T
