"""Results of models that are more than a tensor: likelihoods, visuals and curves."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from zoo.core.space import Space
from zoo.nn.distributions.likelihoods import LikelihoodKind


@dataclass(frozen=True)
class Likelihood:
    """One likelihood of a batch; a model may offer several.

    Args:
        value: log-likelihood in nats, or a lower bound on it, (B,).
        kind: "discrete" for log-probabilities of levels or tokens, "continuous" for log-densities. Never compare them.
        exact: False for a lower bound.
        name: of the metric: "nll", "nelbo", "nll_iw" (k is appended) ...
    """

    value: Tensor
    kind: LikelihoodKind
    exact: bool
    name: str = "nll"


@dataclass(frozen=True)
class Visual:
    """Something to look at beside samples.

    Args:
        name: on the dashboard.
        space: of the tensor; its renderer draws it.
        tensor: a batch (B, *space.shape).
        columns: in a grid; None makes it about square.
        row_names: of the grid, repeated from its top; () writes none.
        column_names: of the grid, repeated from its left.
    """

    name: str
    space: Space
    tensor: Tensor
    columns: int | None = None
    row_names: Sequence[str] = ()
    column_names: Sequence[str] = ()


@dataclass(frozen=True)
class Curve:
    """One curve to draw.

    Args:
        name: of y; the title.
        x: (N,), in increasing order.
        y: (N,).
        x_name: of x.
        marks: values of x to mark on the curve (M,).
    """

    name: str
    x: Tensor
    y: Tensor
    x_name: str
    marks: Tensor | None = None
