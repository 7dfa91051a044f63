"""Tables that scikit-learn ships."""

from typing import Any

from zoo.core.registry import register
from zoo.data.table.rows import Rows, Texts


@register("data", "diabetes")
class Diabetes(Rows):
    """Patients with diabetes: ten measurements, and the progression of the disease after a year; 442 rows.

    Source: Efron, Hastie, Johnstone & Tibshirani 2004 (Annals of Statistics 32), in scikit-learn. One column has two
    categories, `sex`; the others are numbers.

    Args:
        types: types where the inferred one is wrong, such as [rooms:number,code:key]; also category and date.
        columns: columns to learn; null is every column.
        target: column that a classifier or regression predicts in `zoo evaluate`; null is the progression.
        constraints: rules that samples obey, such as ["18<=age"]; see `mixed_table`.
        batch_size: rows per batch.
        seed: seed of the training order.
    """

    def read(self) -> Texts:
        """Fields in the units of the measurements."""
        from sklearn.datasets import load_diabetes

        return fields_of(load_diabetes(scaled=False), "progression")


@register("data", "wine")
class Wine(Rows):
    """Italian wines: thirteen chemical measurements, and one of three cultivars; 178 rows.

    Source: Forina et al. 1991, in scikit-learn.

    Args:
        types: types where the inferred one is wrong, such as [rooms:number,code:key]; also category and date.
        columns: columns to learn; null is every column.
        target: column that a classifier or regression predicts in `zoo evaluate`; null is the cultivar.
        constraints: rules that samples obey, such as ["18<=age"]; see `mixed_table`.
        batch_size: rows per batch.
        seed: seed of the training order.
    """

    def read(self) -> Texts:
        """Fields in the units of the measurements."""
        from sklearn.datasets import load_wine

        return fields_of(load_wine(), "cultivar")


def fields_of(found: Any, target: str) -> Texts:
    """Fields of a data set of scikit-learn, with its target as the last column."""
    texts = {str(name): [f"{v:.6g}" for v in found.data[:, i]] for i, name in enumerate(found.feature_names)}
    return texts | {target: [f"{v:g}" for v in found.target]}
