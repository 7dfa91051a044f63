"""Metrics of rows of mixed columns: shapes, dependence, privacy, use for training."""

import math
from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Table
from zoo.data.base import DataModule
from zoo.data.loader import make_generator
from zoo.data.table.constraints import broken
from zoo.evaluation.context import Better, EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.metrics.tables import column_shapes, copied_rows, efficacy, membership_auc, pair_trends
from zoo.models.abilities import SupportsSampling
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.nn.blocks.table_codec import TableCodec

N_ATTACKED = 2_000  # training rows in the membership attack


@register("suite", "tables")
class TableSuite(Suite):
    """Scores of synthetic rows: the shape of each column, trends of pairs, copies, and training on them."""

    order = 45
    draws = True

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that sample rows of columns."""
        return supports(model, SupportsSampling) and isinstance(model.spec.x, Table)

    def measure(self, context: EvaluationContext) -> Scores:
        """All scores; the summands of the first two are those of the columns and pairs."""
        return tables(context)


def tables(context: EvaluationContext) -> Scores:
    """Compare synthetic rows with held-out rows, and with training rows."""
    space = context.data.spec.x
    assert isinstance(space, Table)
    codec = TableCodec(space)
    columns = codec.columns
    drawn, held, other = context.drawn[0], context.held_out[0], context.training
    fake, real, reference = codec.decode(drawn), codec.decode(held), codec.decode(other)
    n, scores = len(drawn), dict[str, Metric]()

    def add(name: str, better: Better, value: float, ideal: float | None, parts: tuple[float, ...] = ()) -> None:
        scores[context.name(name, n)] = Metric(value, better, ideal, parts=parts)

    for name, measure in (("column_shapes", column_shapes), ("pair_trends", pair_trends)):
        parts, ideal = measure(real, fake, columns), measure(real, reference, columns)
        if parts:  # one column has no pairs
            add(name, "higher", mean(parts), mean(ideal), tuple(parts))
    if space.constraints:
        add("constraints_kept", "higher", share_kept(space, drawn), share_kept(space, held))
    order = make_generator(context.protocol.seed, 8)
    everything = context.data.train[0]
    add(
        "copied_rows",
        "reference",
        copied_rows(fake, codec.decode(everything)),
        copied_rows(real, codec.decode(everything)),
    )
    members = sample_of(everything, N_ATTACKED, order)
    add("membership_auc", "reference", membership_auc(members, held, drawn), 0.5)
    if predicted := getattr(context.data, "target", None):
        target = [column.name for column in columns].index(predicted)
        what = "accuracy" if columns[target].kind == "category" else "r2"
        if (~real[:, target].isnan()).sum() > 1:
            found, ideal_use = (efficacy(x, real, columns, target, context.protocol.seed) for x in (fake, reference))
            add(f"train_on_samples_{what}", "higher", found, ideal_use)
    return scores


def share_kept(space: Table, x: Tensor) -> float:
    """Share of encoded rows (N, F) that obey all constraints of their table."""
    return 1 - float(broken(space, x).double().mean())


def sample_of(rows: Tensor, n: int, generator: Any) -> Tensor:
    """At most n rows at random."""
    return rows[torch.randperm(len(rows), generator=generator)[:n]]


def mean(values: list[float]) -> float:
    """Mean of at least one value."""
    return math.fsum(values) / len(values)
