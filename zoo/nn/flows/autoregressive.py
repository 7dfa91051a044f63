"""Autoregressive flows of vectors: MAF and IAF."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Depth, DropoutRate, Positive, PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Vector
from zoo.nn.flows.base import Chain, Flatten, Inverted, Reverse, Transform
from zoo.nn.flows.univariate import Univariate, spline_or_affine

MAX_PASSES = 16  # of a network, one after another, in an exported graph


class MaskedLinear(nn.Linear):
    """A linear layer without the connections where the mask (n_out, n_in) is False."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in) -> (B, n_out)."""
        return F.linear(x, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """Values (B, D) -> parameters (B, D, P); those of a value depend on the values before it (1502.03509).

    Args:
        dim: D.
        n_params: P.
        n_classes: 0 ignores labels.
        width: units per hidden layer.
        depth: hidden layers.
        dropout: of hidden units.
        n_context: size of a vector that all parameters but the first may depend on; in place of labels.
    """

    def __init__(
        self, dim: int, n_params: int, n_classes: int, width: int, depth: int, dropout: float, n_context: int = 0
    ) -> None:
        super().__init__()
        self.n_params = n_params
        degree, layers = torch.arange(dim), []  # a unit of degree d may depend on the values 0 to d
        for _ in range(depth):
            hidden = torch.arange(width) % max(dim - 1, 1)
            layers += [MaskedLinear(hidden[:, None] >= degree), nn.SiLU(), nn.Dropout(dropout)]
            degree = hidden
        head = MaskedLinear((torch.arange(dim)[:, None] > degree).repeat_interleave(n_params, 0))
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.layers = nn.ModuleList([*layers, head])
        first: Any = len(self.layers[0].bias)  # type: ignore[arg-type]
        self.label: nn.Module | None = nn.Embedding(n_classes, first) if n_classes else None
        if n_context:
            self.label = nn.Linear(n_context, first, bias=False)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, D), labels (B,) or context (B, n_context) -> (B, D, P)."""
        first, *rest = self.layers
        h = first(x) if self.label is None else first(x) + self.label(y)
        for layer in rest:
            h = layer(h)
        return h.unflatten(1, (-1, self.n_params))


class MaskedAutoregressive(Transform):
    """z_d = f(x_d; parameters from x_1 ... x_(d - 1)): one pass forward, D passes back (1705.07057).

    Args:
        function: of one variable.
        made: values -> parameters.
    """

    def __init__(self, function: Univariate, made: nn.Module) -> None:
        super().__init__()
        self.function, self.made = function, made

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `Transform.forward`; (B, D)."""
        z, log_slope = self.function.forward(x, self.made(x, y))
        return z, log_slope.sum(1)

    def inverse(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See `Transform.inverse`; (B, D)."""
        x = torch.zeros_like(z)
        for d in range(z.shape[1]):
            value = self.function.inverse(z[:, d], self.made(x, y)[:, d])
            x = torch.cat([x[:, :d], value[:, None], x[:, d + 1 :]], 1)
        return x


@register("transform", "autoregressive")
def autoregressive(
    shape: Sequence[int],
    n_classes: int,
    *,
    univariate: Literal["affine", "spline"] = "affine",
    n_layers: PositiveInt = 5,
    bins: Annotated[int, Ge(2)] = 8,
    bound: Positive = 4.0,
    width: PositiveInt = 128,
    depth: Depth = 2,
    dropout: DropoutRate = 0.0,
) -> Transform:
    """Masked autoregressive flow (Papamakarios et al. 2017, 1705.07057): densities in one pass, samples value by value.

    The order of the values is reversed between layers. Images are flattened.

    Args:
        shape: of one sample.
        n_classes: 0 ignores labels.
        univariate: "affine", or "spline" as in neural spline flows (1906.04032).
        n_layers: autoregressive layers.
        bins: of a spline.
        bound: of a spline, in standard deviations of the data; the identity beyond.
        width: units per hidden layer of the masked networks.
        depth: hidden layers of each; 0 is linear.
        dropout: of hidden units.
    """
    dim = torch.Size(shape).numel()
    function = spline_or_affine(univariate, bins, bound)
    parts: list[Transform] = []
    for _ in range(n_layers):
        made = MADE(dim, function.n_params, n_classes, width, depth, dropout)
        parts += [MaskedAutoregressive(function, made), Reverse()]
    flow = Flatten(Chain(parts[:-1]))
    flow.exportable = dim <= MAX_PASSES
    return flow


@register("transform", "inverse_autoregressive")
class InverseAutoregressive(Inverted):
    """Inverse autoregressive flow (Kingma et al. 2016, 1606.04934): samples in one pass, densities value by value.

    Args:
        shape: of one sample.
        n_classes: 0 ignores labels.
        univariate: "affine" or "spline".
        n_layers: autoregressive layers.
        bins: of a spline.
        bound: of a spline, in standard deviations of the data; the identity beyond.
        width: units per hidden layer of the masked networks.
        depth: hidden layers of each; 0 is linear.
        dropout: of hidden units.

    Raises:
        ZooError: images, whose training would take a pass for each pixel.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Vector,)

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int,
        *,
        univariate: Literal["affine", "spline"] = "affine",
        n_layers: PositiveInt = 5,
        bins: Annotated[int, Ge(2)] = 8,
        bound: Positive = 4.0,
        width: PositiveInt = 128,
        depth: Depth = 2,
        dropout: DropoutRate = 0.0,
    ) -> None:
        if len(shape) != 1:
            raise ZooError(
                f"model.transform=inverse_autoregressive: needs vectors, but a sample here is {tuple(shape)}. Choose "
                "model/transform=autoregressive."
            )
        super().__init__(
            autoregressive(
                shape, n_classes, univariate=univariate, n_layers=n_layers, bins=bins, bound=bound, width=width,
                depth=depth, dropout=dropout,
            )
        )  # fmt: skip
