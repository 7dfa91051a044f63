"""Rows are encoded and decoded without loss, and every vector decodes to a valid row."""

import pytest
import torch

from tests.data.table.examples import COLUMNS, SPEC, rows
from zoo.core.columns import Column, write_columns
from zoo.core.spaces import Table
from zoo.nn.blocks.table_codec import TableCodec

TABLE = SPEC.x
CODEC = TableCodec(TABLE)


def cells(n: int) -> torch.Tensor:
    return CODEC.decode(rows(n))


def test_encoding_is_a_bijection_of_rows() -> None:
    x = rows(200)
    found = CODEC.decode(x)
    assert found.isnan().any(0).tolist() == [True, False, True]
    torch.testing.assert_close(CODEC.encode(found), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(CODEC.snap(x), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(CODEC.decode(CODEC.encode(found)), found, atol=1e-5, rtol=0, equal_nan=True)
    assert torch.equal(CODEC.decode(CODEC.encode(found))[:, :2].nan_to_num(9), found[:, :2].nan_to_num(9))


@pytest.mark.parametrize("size", [10, 4_000, 2**18 - 1])
def test_a_grid_is_exact_up_to_its_largest_size(size: int) -> None:
    knots = (-0.5, size / 1000, size * 0.9, size + 0.5)
    knots = (knots[0], round(knots[1]) + 0.5, round(knots[2]) + 0.5, knots[3])
    column = Column("n", "number", low=-7.25, high=-7.25 + size / 4, step=0.25, knots=knots, scores=(-3, -0.1, 0.2, 3))
    codec = TableCodec(Table(write_columns((column,))))
    every = -7.25 + torch.arange(0, size + 1, max(size // 5000, 1), dtype=torch.float64)[:, None] / 4
    assert torch.equal(codec.decode(codec.encode(every)), every)


def test_every_vector_decodes_to_a_valid_row() -> None:
    wild = 50 * torch.randn(500, *TABLE.shape)
    found = CODEC.decode(wild)
    assert set(found[:, 0].nan_to_num(-1).tolist()) == {-1, 0, 1, 2}
    assert set(found[:, 1].tolist()) == {0, 1, 2, 3, 4}
    given = found[:, 2][~found[:, 2].isnan()]
    assert -3 <= given.min() < given.max() <= 5
    torch.testing.assert_close(CODEC.decode(CODEC.snap(wild)), found, atol=1e-5, rtol=0, equal_nan=True)


def test_scales_are_inverse_and_their_slope_is_the_derivative() -> None:
    codec = TableCodec(TABLE).double()
    t = torch.linspace(-3, 8, 97, dtype=torch.float64)[:, None].repeat(1, 2)
    z = codec.to_scores(t)
    assert (z.diff(dim=0) > 0).all()
    torch.testing.assert_close(codec.from_scores(z), t)
    a = t + 1e-4
    torch.testing.assert_close((codec.to_scores(a) - z) / 1e-4, codec.slope(t), rtol=1e-6, atol=1e-8)


def test_a_mask_covers_whole_columns() -> None:
    mask = torch.zeros(2, CODEC.width, dtype=torch.bool)
    mask[0, 2] = True  # one category
    mask[1, -1] = True  # the score of a number that may be missing
    assert CODEC.masked(mask).tolist() == [[True, False, False, False], [False, False, True, True]]
    assert CODEC.spread(CODEC.masked(mask)).sum(1).tolist() == [4, 3]
    assert [block.column for block in CODEC.blocks] == [0, 1, 2, 2]
    assert len(COLUMNS) == 4
