"""Imputation of hidden cells of tables, beside means and modes of the columns."""

from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Table
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.metrics.imputation import centre, imputation_scores
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.image_abilities import SupportsInpainting
from zoo.nn.blocks.table_codec import TableCodec

HIDDEN = 0.2  # share of cells
DRAWS = 10  # of each hidden cell
MAX_ROWS = 1_000


@register("suite", "imputation")
class ImputationSuite(Suite):
    """Hidden cells of held-out rows, filled in given the others.

    A fifth of the cells are hidden at random. A number becomes the mean of ten draws, and a category the most frequent
    one. Draws of a missing value are left out. The floors are the mean and mode of the column in the training data.
    """

    order = 46

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that fill in rows of columns."""
        return supports(model, SupportsInpainting) and isinstance(model.spec.x, Table)

    def measure(self, context: EvaluationContext) -> Scores:
        """`imputation_nrmse` and `_accuracy`, and their floors `imputation_nrmse_mean` and `_accuracy_mode`."""
        model: Any = context.model
        space = context.data.spec.x
        assert isinstance(space, Table)
        codec = TableCodec(space)
        x, trained = context.held_out[0][:MAX_ROWS], codec.decode(context.training)
        real = codec.decode(x)
        chance = make_generator(context.protocol.seed, 12)
        hidden = torch.rand(real.shape, generator=chance) < HIDDEN  # (N, C)
        typical = centre(trained, codec.columns)  # (C,)
        drawn = draws(model, codec, x, hidden, chance)
        best = centre(drawn.transpose(0, 1), codec.columns)  # (N, C)
        filled = torch.where(best.isnan(), typical, best)
        spread = spreads(trained)
        found = imputation_scores(real, filled, hidden, codec.columns, spread)
        floor = imputation_scores(real, typical.expand_as(real), hidden, codec.columns, spread)
        names = {"nrmse": "nrmse_mean", "accuracy": "accuracy_mode"}
        n, scores = len(real), dict[str, Metric]()
        for name, value in found.items():
            better = "lower" if name == "nrmse" else "higher"
            scores[context.name(f"imputation_{name}", n)] = Metric(value, better)  # type: ignore[arg-type]
            scores[context.name(f"imputation_{names[name]}", n)] = Metric(floor[name], better)  # type: ignore[arg-type]
        return scores


def draws(model: Any, codec: TableCodec, x: Tensor, hidden: Tensor, generator: torch.Generator) -> Tensor:
    """Cells of rows (N, F) whose hidden columns (N, C) are drawn, `DRAWS` times: (DRAWS, N, C)."""
    mask = torch.zeros(x.shape, dtype=torch.bool)
    for block in codec.blocks:
        mask[:, block.places] = hidden[:, block.column : block.column + 1]
    given, mask = x.to(model.device), mask.to(model.device)
    return torch.stack([codec.decode(model.inpaint(given, mask, generator=generator)) for _ in range(DRAWS)])


def spreads(cells: Tensor) -> Tensor:
    """Standard deviations (C,) of the columns of cells (N, C) without their missing values."""
    return torch.stack([column[~column.isnan()].std(correction=0) for column in cells.T])
