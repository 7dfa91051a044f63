"""Standardisation of data: mean zero, standard deviation one."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.core.space import PixelSpace
from zoo.core.spaces import Series, Vector
from zoo.core.spec import DataSpec

FAR = 3.0  # standard deviations from 1/3 to 3, and means up to 3 of them from zero, stay as they are
FIT_ROWS = 10_000  # training samples that location and scale are computed from


class Standardize(nn.Module):
    """x -> (x - location) / scale, column by column, for vectors far from standard; the identity for other data.

    Of series, all steps of a column have one location and scale.

    Vectors that are nearly standard stay as they are. Settings in units of the data, such as the weight of a gradient
    penalty, then keep their meaning. Checkpoints without these buffers load as the identity.

    Args:
        spec: describes the data.
        images: standardise images and videos too, by one location and scale; before `fit`, to [-1, 1].
    """

    location: Tensor  # (D,), (T, D) for series, or () for images
    scale: Tensor

    def __init__(self, spec: DataSpec, images: bool = False) -> None:
        super().__init__()
        self.images = images and isinstance(spec.x, PixelSpace)
        self.active = self.images or isinstance(spec.x, (Vector, Series))
        self.series = isinstance(spec.x, Series)
        self.size = spec.size
        if self.active:
            start = torch.tensor(0.5) if self.images else None
            self.register_buffer("location", torch.zeros(spec.shape) if start is None else start)
            self.register_buffer("scale", torch.ones(spec.shape) if start is None else start.clone())
            self.register_load_state_dict_pre_hook(_add_missing_buffers)

    def fit(self, x: Tensor) -> None:
        """Compute location and scale from training data (N, *shape), of vectors only if these are far from standard."""
        if self.images:
            self.location.copy_(x.double().mean())
            self.scale.copy_(x.double().std(correction=0).clamp(min=1e-3))
            return
        rows = x.double().flatten(0, 1) if self.series else x.double()
        mean, std = rows.mean(0), rows.std(0, correction=0)
        std = torch.where(std > 0, std, 1.0)  # for constant columns
        if mean.abs().gt(FAR * std).any() or (std.log().abs() > math.log(FAR)).any():
            self.location.copy_(mean)
            self.scale.copy_(std)

    def forward(self, x: Tensor) -> Tensor:
        """Data (B, *shape) -> standardised data."""
        return (x - self.location) / self.scale if self.active else x

    def inverse(self, x: Tensor) -> Tensor:
        """Standardised data (B, *shape) -> data."""
        return x * self.scale + self.location if self.active else x

    @property
    def log_abs_det(self) -> Tensor | float:
        """log |det d standardised / d data|: add it to a log-density of standardised vectors."""
        if not self.active:
            return 0.0
        return -self.scale.log() * self.size if self.images else -self.scale.log().sum()


def _add_missing_buffers(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Complete the state of an older checkpoint."""
    for name, buffer in module.named_buffers(recurse=False):
        state.setdefault(prefix + name, torch.zeros_like(buffer) if name == "location" else torch.ones_like(buffer))
