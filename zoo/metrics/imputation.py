"""Scores of filled-in cells of tables, on cells (N, C): NaN is a missing value."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.core.columns import Column


def centre(cells: Tensor, columns: Sequence[Column]) -> Tensor:
    """The mean of each column of numbers, and the most frequent value of each category, (..., N, C) -> (..., C).

    Missing values are left out; a column without any value has NaN. Of equally frequent categories, it is the first.
    """
    found = []
    for index, column in enumerate(columns):
        values = cells[..., index]
        if column.numeric:
            found.append(values.nanmean(-1))
            continue
        codes = torch.arange(len(column.categories), dtype=values.dtype)
        counts = (values[..., None] == codes).sum(-2)  # (..., K)
        found.append(counts.argmax(-1).to(values).masked_fill(counts.sum(-1) == 0, torch.nan))
    return torch.stack(found, -1)


def imputation_scores(
    real: Tensor, filled: Tensor, hidden: Tensor, columns: Sequence[Column], spread: Tensor
) -> dict[str, float]:
    """Errors of filled-in cells against the hidden ones.

    - `nrmse`: root mean squared error of numbers, in standard deviations of their columns, as in Stekhoven & Buehlmann
      2012 (arXiv:1105.0828), which has one scale for all;
    - `accuracy`: share of right categories.

    Cells that are missing in the real data are left out. A score without cells is not among the results.

    Args:
        real: cells (N, C).
        filled: cells (N, C), without missing values where `hidden`.
        hidden: cells to score, bool (N, C).
        columns: of the cells.
        spread: standard deviations (C,), of the training data.
    """
    scored, scores = hidden & ~real.isnan(), dict[str, float]()
    numeric = torch.tensor([column.numeric for column in columns])
    error = ((filled - real) / spread.clamp(min=1e-12))[scored & numeric]
    if len(error):
        scores["nrmse"] = float(error.square().mean().sqrt())
    if (scored & ~numeric).any():
        scores["accuracy"] = float((filled == real)[scored & ~numeric].double().mean())
    return scores
