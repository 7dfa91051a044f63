"""Columns survive a checkpoint, and refuse values that describe none."""

import pytest

from tests.data.table.examples import COLUMNS
from zoo.core.columns import Column, read_columns, write_columns
from zoo.core.space import Space
from zoo.core.spaces import Table


def test_plain_values_give_the_columns_back() -> None:
    text = write_columns(COLUMNS)
    assert read_columns(text) == COLUMNS
    table = Table(text)
    assert Space.from_dict(table.to_dict()) == table
    assert table.columns == COLUMNS
    assert table.shape == (4 + 1 + 0 + 3,)
    assert str(table) == "rows of 4 columns (1 category, 2 number, 1 key)"


GOOD = {"name": "a", "kind": "number", "knots": [0, 1], "scores": [0, 1]}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"name": "a", "kind": "text"},
        {"name": 3, "kind": "key"},
        {"name": "a", "kind": "category"},
        {"name": "a", "kind": "category", "categories": ["x", "x"]},
        {**GOOD, "knots": [0]},
        {**GOOD, "knots": [0, 0]},
        {**GOOD, "scores": [1, 0]},
        {**GOOD, "knots": [0, float("inf")]},
        {**GOOD, "low": 2, "high": 1},
        {**GOOD, "step": -1},
        {**GOOD, "decimals": 99},
    ],
)
def test_values_that_describe_no_column_are_refused(values: dict[str, object]) -> None:
    assert Column.from_dict(GOOD).kind == "number"
    with pytest.raises(ValueError, match=r"."):
        Column.from_dict(values)


@pytest.mark.parametrize("schema", ["{}", "[1]", "[]", '[{"name": "id", "kind": "key"}]', "x"])
def test_a_table_needs_columns(schema: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Space.from_dict({"space": "table", "schema": schema})
    twice = write_columns((Column("a", "key"), Column("a", "category", ("x",))))
    with pytest.raises(ValueError, match="two columns"):
        Space.from_dict({"space": "table", "schema": twice})
