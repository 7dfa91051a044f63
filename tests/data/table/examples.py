"""A small table of every kind of column, for tests."""

import torch
from torch import Tensor

import zoo
from zoo.core.columns import Column, write_columns
from zoo.core.spaces import Table
from zoo.data.loader import make_generator
from zoo.nn.blocks.table_codec import TableCodec

COLUMNS = (
    Column("colour", "category", ("blue", "red", "white"), missing=True),
    Column("count", "number", high=4.0, step=1.0, knots=(-0.5, 1.5, 4.5), scores=(-2.0, 0.0, 2.0)),
    Column("id", "key"),
    Column("size", "number", missing=True, low=-3.0, high=5.0, decimals=3, knots=(0.0, 0.5, 1.0), scores=(-2, 0.5, 2)),
)
SPEC = zoo.DataSpec(Table(write_columns(COLUMNS)), name="rows")


def rows(n: int) -> Tensor:
    """Encoded rows (n, F): the columns are independent; a fifth and a quarter of two of them are missing."""
    cells = torch.rand(n, 3, generator=make_generator(5)).double() * torch.tensor([3, 5, 8]) + torch.tensor([0, 0, -3])
    cells[:, :2] = cells[:, :2].floor()
    cells[::5, 0], cells[1::4, 2] = torch.nan, torch.nan
    return TableCodec(SPEC.x).encode(cells)
