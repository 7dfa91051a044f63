"""Encoding of rows of mixed columns as vectors, and back."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from zoo.core.columns import Column
from zoo.core.spaces import Table
from zoo.nn.blocks.constants import FixedConstants

NO_GATE = -1


@dataclass(frozen=True)
class Block:
    """Neighbouring numbers of an encoded row that belong together: a score, or a one-hot choice.

    Args:
        column: index among the columns that are learned.
        choice: whether it is one-hot.
        start: of the numbers.
        size: how many there are.
        gate: place that is 1 where the score of this block is missing; -1 if it never is.
        scale: row of the scale in the tables of `TableCodec`; -1 for a choice.
    """

    column: int
    choice: bool
    start: int
    size: int
    gate: int = NO_GATE
    scale: int = -1

    @property
    def places(self) -> slice:
        """The numbers of the block in a row."""
        return slice(self.start, self.start + self.size)


class TableCodec(FixedConstants):
    """Cells (N, C) <-> encoded rows (N, F); keys are not among the columns.

    Cells are float64: numbers, dates as days or seconds since 1970, categories as codes, NaN for missing values. The
    round trip is exact for categories, missing values, and numbers on a grid. Real numbers keep the precision of x.
    Decoding accepts every vector. It takes the largest place of a one-hot choice and the nearest number of a grid, and
    limits numbers to the range of the column. So every sample is a valid row.

    Args:
        space: of the table.
    """

    knots: Tensor  # (M, K) of each column of numbers, continued by its last slope
    scores: Tensor  # (M, K)
    slopes: Tensor  # (M, K - 1), d score / d t
    inner: Tensor  # (M, K - 2), infinite where there is none
    inner_scores: Tensor
    last: Tensor  # (M,), largest t
    grid: Tensor  # bool (M,)
    at: Tensor  # int64 (M,), places of the scores in a row
    block_of: Tensor  # int64 (F,), block of each place
    column_mates: Tensor  # (F, n_blocks), 1 where the block belongs to the column of the place

    def __init__(self, space: Table) -> None:
        super().__init__()
        self.columns: tuple[Column, ...] = tuple(c for c in space.columns if c.kind != "key")
        self.blocks: list[Block] = []
        numeric = [c for c in self.columns if c.numeric]
        place = 0
        for number, column in enumerate(self.columns):
            gate = NO_GATE
            if not column.numeric or column.missing:
                size = 2 if column.numeric else column.width
                self.blocks.append(Block(number, True, place, size))
                gate, place = place + 1 if column.numeric else NO_GATE, place + size
            if column.numeric:
                self.blocks.append(Block(number, False, place, 1, gate, numeric.index(column)))
                place += 1
        self.width = place
        longest = max([len(c.knots) for c in numeric], default=2)
        tables = torch.zeros(2, len(numeric), longest, dtype=torch.float64)
        for row, column in enumerate(numeric):
            knots, scores = (torch.tensor(v, dtype=torch.float64) for v in (column.knots, column.scores))
            slope, more = (scores[-1] - scores[-2]) / (knots[-1] - knots[-2]), torch.arange(1, longest - len(knots) + 1)
            tables[0, row] = torch.cat([knots, knots[-1] + more])
            tables[1, row] = torch.cat([scores, scores[-1] + more * slope])
        knots, scores = tables
        buffers = {
            "knots": knots,
            "scores": scores,
            "slopes": scores.diff() / knots.diff(),
            "inner": knots[:, 1:-1],
            "inner_scores": scores[:, 1:-1],
            "last": torch.tensor([(c.high - c.low) / c.unit for c in numeric], dtype=torch.float64),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.float().contiguous(), persistent=False)
        block_of = [number for number, block in enumerate(self.blocks) for _ in range(block.size)]
        owner = torch.tensor([block.column for block in self.blocks])
        buffers = {
            "grid": torch.tensor([c.step > 0 for c in numeric], dtype=torch.bool),
            "at": torch.tensor([block.start for block in self.blocks if not block.choice], dtype=torch.int64),
            "block_of": torch.tensor(block_of),
            "column_mates": (owner[block_of][:, None] == owner).float(),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    # -- scales of numbers, M columns at once ----------------------------------------------------------------------

    def segments(self, t: Tensor, borders: Tensor) -> Tensor:
        """Segment of the scale that holds each t or score (B, M): int64 (B, M)."""
        return (t[..., None] >= borders.to(t)).sum(-1)

    def to_scores(self, t: Tensor) -> Tensor:
        """t -> standard normal scores, (B, M)."""
        i = self.segments(t, self.inner)
        return self._pick(self.scores, i, t) + self._pick(self.slopes, i, t) * (t - self._pick(self.knots, i, t))

    def from_scores(self, z: Tensor) -> Tensor:
        """Standard normal scores -> t, (B, M)."""
        i = self.segments(z, self.inner_scores)
        return self._pick(self.knots, i, z) + (z - self._pick(self.scores, i, z)) / self._pick(self.slopes, i, z)

    def slope(self, t: Tensor) -> Tensor:
        """Derivative of the scores at t, (B, M)."""
        return self._pick(self.slopes, self.segments(t, self.inner), t)

    def on_range(self, t: Tensor) -> Tensor:
        """Nearest possible t (B, M): on the grid, and in the range of the column."""
        return torch.where(self.grid.to(t.device), t.round(), t).clamp(min=0).minimum(self.last.to(t))

    @staticmethod
    def _pick(table: Tensor, index: Tensor, like: Tensor) -> Tensor:
        return table.to(like).gather(1, index.T).T

    # -- rows --------------------------------------------------------------------------------------------------------

    @property
    def score_blocks(self) -> list[Block]:
        """Blocks of scores, in the order of the tables."""
        return [block for block in self.blocks if not block.choice]

    def encode(self, cells: Tensor) -> Tensor:
        """Cells (N, C) -> rows (N, F) float32."""
        x = torch.zeros(len(cells), self.width, dtype=torch.float64)
        cells = cells.double()
        known = ~cells.isnan()
        for block in self.blocks:
            column, cell, given = self.columns[block.column], cells[:, block.column], known[:, block.column]
            if block.choice and column.numeric:
                x[:, block.start], x[:, block.start + 1] = given.double(), (~given).double()
            elif block.choice:
                code = torch.where(given, cell, len(column.categories)).long()
                x[torch.arange(len(x)), block.start + code] = 1
        if self.score_blocks:
            t = torch.stack([self.t_of(block, cells) for block in self.score_blocks], 1)
            present = torch.stack([known[:, block.column] for block in self.score_blocks], 1)
            x[:, self.at.cpu()] = torch.where(present, self.to_scores(t), 0.0)
        return x.float()

    def t_of(self, block: Block, cells: Tensor) -> Tensor:
        """Values of t of a column of numbers (N,); 0 for missing ones."""
        column = self.columns[block.column]
        t = (cells[:, block.column].nan_to_num(column.low) - column.low) / column.unit
        return t.round() if column.step else t

    def decode(self, x: Tensor) -> Tensor:
        """Rows or any vectors (N, F) -> cells (N, C) float64, on the CPU."""
        x = x.detach().cpu().double()
        cells = torch.full((len(x), len(self.columns)), torch.nan, dtype=torch.float64)
        t = self.on_range(self.from_scores(x[:, self.at.cpu()])) if self.score_blocks else None
        for block in self.blocks:
            column = self.columns[block.column]
            if block.choice and not column.numeric:
                code = x[:, block.places].argmax(1)
                cells[:, block.column] = code.double().masked_fill(code == len(column.categories), torch.nan)
            elif not block.choice and t is not None:
                value = column.low + column.unit * t[:, block.scale]
                gone = x[:, block.gate] > x[:, block.gate - 1] if block.gate >= 0 else torch.zeros(len(x)).bool()
                cells[:, block.column] = value.masked_fill(gone, torch.nan)
        return cells

    def snap(self, x: Tensor) -> Tensor:
        """The rows (N, F) that vectors (N, F) decode to, encoded, on the same device."""
        parts = [torch.empty(0)] * len(self.blocks)
        z = self.to_scores(self.on_range(self.from_scores(x[:, self.at]))) if self.score_blocks else x
        for number, block in enumerate(self.blocks):
            if block.choice:
                chosen = x[:, block.places].argmax(1)
                parts[number] = functional.one_hot(chosen, block.size).to(x.dtype)
            else:
                score = z[:, block.scale : block.scale + 1]
                if block.gate >= 0:
                    score = score * parts[number - 1][:, :1]
                parts[number] = score
        return torch.cat(parts, 1)

    def masked(self, mask: Tensor) -> Tensor:
        """Columns of which a mask (B, F) holds any place, spread over all their blocks: bool (B, n_blocks)."""
        return mask.float() @ self.column_mates.to(mask.device) > 0

    def spread(self, blocks: Tensor) -> Tensor:
        """Values of blocks (B, n_blocks) -> of their places (B, F)."""
        return blocks[:, self.block_of.to(blocks.device)]
