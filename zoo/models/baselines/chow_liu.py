"""Tree of dependences between the columns of a table."""

import math
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from zoo.core.columns import Column
from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Positive, PositiveInt
from zoo.core.spaces import Table
from zoo.core.spec import DataSpec
from zoo.data.table.cells import rows_to_draw
from zoo.data.table.constraints import constrained
from zoo.models.abilities import ExactLikelihood
from zoo.models.baselines.base import Fitted
from zoo.models.baselines.gaussian_copula import inside, log_share
from zoo.nn.blocks.table_codec import TableCodec
from zoo.nn.distributions.likelihoods import LikelihoodKind

ROWS = 4_096  # that are counted at once
MAX_CELLS = 2**25  # of all conditional tables


@register("model", "chow_liu")
class ChowLiu(ExactLikelihood, Fitted):
    """Chow-Liu tree: each column depends on one other, along the tree of the largest mutual information.

    It is the Bayesian network of the largest likelihood among all trees. Numbers are in bins of equal shares; within a
    bin they have the distribution of the column alone. Likelihoods, samples and conditional samples are exact. Before
    fitting, columns are independent, choices are equally likely, and numbers have the distribution of their column.

    Args:
        spec: of the table.
        n_bins: most bins of a number; whole cells of a grid.
        pseudo_count: rows that are spread evenly over each pair of columns, so that unseen pairs have a probability.

    Raises:
        ZooError: tables of more than 33 million pairs of states.
    """

    accepts = (Table,)
    paper = "Chow & Liu 1968 (IEEE Transactions on Information Theory 14)"
    edges: Tensor  # (C, E) inner borders of the bins of each column in t, float64; infinite beyond the last
    table: Tensor  # (C, K, K) log-probabilities of a state given the parent's; the first column of the tree ignores it
    parent: Tensor  # int64 (C,), -1 for the first column of the tree
    order: Tensor  # int64 (C,), parents before children

    def __init__(self, spec: DataSpec, *, n_bins: PositiveInt = 8, pseudo_count: Positive = 10.0) -> None:
        super().__init__(spec)
        assert isinstance(spec.x, Table)
        self.codec, self.pseudo_count = TableCodec(spec.x), pseudo_count
        columns = self.codec.columns
        self.likelihood_kind: LikelihoodKind = (
            "continuous" if any(column.numeric and not column.step for column in columns) else "discrete"
        )
        borders = [bin_edges(column, n_bins) if column.numeric else [] for column in columns]
        self.sizes = [
            len(inner) + 1 + column.missing if column.numeric else column.width
            for column, inner in zip(columns, borders, strict=True)
        ]
        most, widest = max(self.sizes), max(map(len, borders))
        if len(columns) * most**2 > MAX_CELLS:
            raise ZooError(
                f"model=chow_liu: {len(columns)} columns of up to {most:,} categories need too large tables. Leave "
                "columns out: data.columns=[NAME,...]."
            )
        padded = [inner + [math.inf] * (widest - len(inner)) for inner in borders]
        self.register_buffer("edges", torch.tensor(padded, dtype=torch.float64).view(len(columns), widest))
        self.register_buffer("table", torch.full((len(columns), most, most), -torch.inf, dtype=torch.float64))
        self.register_buffer("parent", torch.full((len(columns),), -1))
        self.register_buffer("order", torch.arange(len(columns)))
        shares = [start_shares(column, inner) for column, inner in zip(columns, borders, strict=True)]
        for number, share in enumerate(shares):
            self.table[number, :, : len(share)] = torch.tensor(share, dtype=torch.float64).log()

    # -- fitting -----------------------------------------------------------------------------------------------------

    def fit(self, data: Tensor) -> None:
        """Count all pairs of states, find the tree, and keep the conditional probabilities along it."""
        device, columns = self.table.device, range(len(self.sizes))
        joint = self.cpu().pair_shares(data)
        parent, order = best_tree(mutual_information(joint))
        self.table.fill_(-torch.inf)
        for c in columns:
            p, k = parent[c], self.sizes[c]
            if p < 0:
                self.table[c, :, :k] = joint[c][c].diagonal().log()
            else:
                pair = joint[p][c]
                self.table[c, : self.sizes[p], :k] = (pair / pair.sum(1, keepdim=True)).log()
        self.parent.copy_(torch.tensor(parent))
        self.order.copy_(torch.tensor(order))
        self.to(device)

    def pair_shares(self, data: Tensor) -> list[list[Tensor]]:
        """Joint shares (K_i, K_j) of all pairs of columns, with the pseudo-count."""
        total = sum(self.sizes)
        counts = torch.zeros(total, total, dtype=torch.float64)
        for rows in data.split(ROWS):
            found = self.states(rows)
            hot = torch.cat([one_hot(found[:, c], k) for c, k in enumerate(self.sizes)], 1).double()
            counts += hot.T @ hot
        n, a = len(data), self.pseudo_count
        shares = [list(rows.split(self.sizes, 1)) for rows in counts.split(self.sizes)]
        for i, row in enumerate(shares):
            for j, pair in enumerate(row):
                extra = torch.eye(len(pair)) / len(pair) if i == j else torch.full_like(pair, 1 / pair.numel())
                row[j] = (pair + a * extra) / (n + a)
        return shares

    # -- rows and states -----------------------------------------------------------------------------------------------

    def states(self, x: Tensor) -> Tensor:
        """Category, bin, or the state after the last bin for a missing number, of rows (B, F): int64 (B, C)."""
        found = [torch.zeros(len(x), dtype=torch.int64, device=x.device)] * len(self.sizes)
        t = self.numbers(x) if self.codec.score_blocks else x
        for block in self.codec.blocks:
            if block.choice:
                if not self.codec.columns[block.column].numeric:
                    found[block.column] = x[:, block.places].argmax(1)
                continue
            bins = (t[:, block.scale : block.scale + 1] >= self.edges[block.column]).sum(1)
            if block.gate >= 0:
                bins = torch.where(x[:, block.gate] > x[:, block.gate - 1], self.sizes[block.column] - 1, bins)
            found[block.column] = bins
        return torch.stack(found, 1)

    def numbers(self, x: Tensor) -> Tensor:
        """Values of t of all numbers of rows (B, F): (B, M) float64."""
        t = self.codec.from_scores(x[:, self.codec.at].double())
        return torch.where(self.codec.grid, t.round(), t)

    def bounds(self) -> Tensor:
        """Scores of the borders of the bins of each column of numbers, (M, E + 2), from minus to plus infinity."""
        inner = self.codec.to_scores(self.edges[[block.column for block in self.codec.score_blocks]].T).T
        ends = inner.new_full((len(inner), 1), torch.inf)
        return torch.cat([-ends, inner, ends], 1)

    def bin_bounds(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest score of the bins that states (B, C) name, (B, M) each; of the last bin where missing."""
        blocks = self.codec.score_blocks
        columns = [self.codec.columns[block.column] for block in blocks]
        last = torch.tensor([self.sizes[b.column] - 1 - c.missing for b, c in zip(blocks, columns, strict=True)])
        chosen = states[:, [block.column for block in blocks]].minimum(last.to(states.device))  # (B, M)
        bounds = self.bounds()
        return bounds.gather(1, chosen.T).T, bounds.gather(1, chosen.T + 1).T

    # -- likelihood --------------------------------------------------------------------------------------------------

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-likelihood of rows (B, F), nats (B,)."""
        states = self.states(x)
        given = states[:, self.parent.clamp(min=0)]
        nats = self.table[torch.arange(len(self.sizes), device=x.device), given, states].sum(1)
        return (nats + self.within(x, states) if self.codec.score_blocks else nats).to(x.dtype)

    def within(self, x: Tensor, states: Tensor) -> Tensor:
        """Log-probability of numbers given their bins, nats (B,): of a cell of a grid, or a density."""
        codec, t = self.codec, self.numbers(x)
        lower = codec.to_scores(t - 0.5).masked_fill(t <= 0, -torch.inf)
        upper = codec.to_scores(t + 0.5).masked_fill(t >= codec.last.double(), torch.inf)
        units = torch.tensor([codec.columns[block.column].unit for block in codec.score_blocks], device=x.device)
        density = -0.5 * codec.to_scores(t).square() - 0.5 * math.log(2 * math.pi) + codec.slope(t).log()
        nats = torch.where(codec.grid, log_share(lower, upper), density - units.double().log())
        nats = nats - log_share(*self.bin_bounds(states))
        gates = [block.gate for block in codec.score_blocks]
        given = torch.stack([1 - x[:, gate] if gate >= 0 else torch.ones_like(x[:, 0]) for gate in gates], 1)
        return (nats * given).sum(1)

    # -- samples -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    @constrained
    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        where: str = "",
    ) -> Tensor:
        """Rows (n, F), from the first column of the tree to the last.

        Args:
            n: number of rows.
            condition: none: the model is unconditional.
            generator: source of randomness.
            where: cells to keep, such as "sex=male, age=30".
        """
        x, hidden = (part.to(self.device) for part in rows_to_draw(self.codec, where, n))
        return self.inpaint(x, hidden, condition=condition, generator=generator)

    @torch.no_grad()
    def inpaint(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Rows (B, F) with new values in the columns that the mask (B or 1, F) holds, drawn given the others."""
        self.check_condition(condition)
        return self.drawn(x, mask.expand_as(x), torch.rand(len(x), len(self.sizes), 2, generator=generator))

    def drawn(self, x: Tensor, mask: Tensor, u: Tensor) -> Tensor:
        """Rows (B, F) with the masked columns from uniform numbers (B, C, 2), given the others.

        Messages go from the leaves to the root: probabilities of all that is given below a column, given its state.
        States are then drawn from the root to the leaves.
        """
        hidden, u = self.codec.masked(mask), u.to(self.table)  # (B, n_blocks)
        free = torch.zeros(len(x), len(self.sizes), dtype=torch.bool, device=x.device)
        for number, block in enumerate(self.codec.blocks):
            free[:, block.column] = hidden[:, number]
        states = self.states(x)
        known = one_hot(states, self.table.shape[1]).double().log()  # (B, C, K), minus infinity beside the given state
        below = list(torch.where(free[..., None], 0.0, known).unbind(1))
        order, parents = self.order.tolist(), self.parent.tolist()
        for c in reversed(order[1:]):
            top = below[c].amax(1, keepdim=True)
            message = ((below[c] - top).exp() @ self.table[c].exp().T).log() + top
            below[parents[c]] = below[parents[c]] + message
        found = list(states.unbind(1))
        for c in order:
            above = self.table[c][found[parents[c]] if parents[c] >= 0 else torch.zeros_like(found[c])]
            cumulated = (above + below[c]).softmax(1).cumsum(1)[:, : self.sizes[c] - 1]
            found[c] = torch.where(free[:, c], (cumulated <= u[:, c, :1]).sum(1), found[c])
        return torch.where(self.codec.spread(hidden), self.rows(torch.stack(found, 1), u[..., 1]).to(x), x)

    def rows(self, states: Tensor, u: Tensor) -> Tensor:
        """Rows (B, F) of states (B, C); a number is drawn within its bin from a uniform one, (B, C)."""
        parts, scores = list[Tensor](), states
        if self.codec.score_blocks:
            columns = [block.column for block in self.codec.score_blocks]
            lower, upper = self.bin_bounds(states)
            scores = inside(lower, upper, torch.zeros_like(lower), 1.0, u[:, columns])  # (B, M)
        for block in self.codec.blocks:
            state = states[:, block.column]
            if not block.choice:
                parts.append(scores[:, block.scale : block.scale + 1])
            elif self.codec.columns[block.column].numeric:
                parts.append(one_hot((state == self.sizes[block.column] - 1).long(), 2).double())
            else:
                parts.append(one_hot(state, block.size).double())
        return self.codec.snap(torch.cat(parts, 1))


def bin_edges(column: Column, n_bins: int) -> list[float]:
    """Borders in t between bins of equal shares by the scale of a column of numbers; between cells of a grid."""
    quantiles = [NormalDist().inv_cdf(i / n_bins) for i in range(1, n_bins)]
    found = np.interp(quantiles, column.scores, column.knots)
    if not column.step:
        return sorted({float(t) for t in found if column.knots[0] < t < column.knots[-1]})
    cells = round((column.high - column.low) / column.step) + 1
    if cells <= n_bins:
        return [cell + 0.5 for cell in range(cells - 1)]
    return sorted({math.floor(t) + 0.5 for t in found if 0 <= math.floor(t) < cells - 1})


def start_shares(column: Column, edges: list[float]) -> list[float]:
    """Probabilities of the states of a column before fitting."""
    if not column.numeric:
        return [1 / column.width] * column.width
    below = [0.0, *(NormalDist().cdf(z) for z in np.interp(edges, column.knots, column.scores)), 1.0]
    bins = np.diff(below) * (0.5 if column.missing else 1.0)
    return [*bins.tolist(), *([0.5] if column.missing else [])]


def mutual_information(joint: list[list[Tensor]]) -> Tensor:
    """Mutual information in nats of all pairs of columns, (C, C), from their joint shares."""
    found = torch.zeros(len(joint), len(joint), dtype=torch.float64)
    for i, row in enumerate(joint):
        for j, pair in enumerate(row):
            apart = pair.sum(1, keepdim=True) * pair.sum(0)
            found[i, j] = torch.xlogy(pair, pair / apart).nan_to_num(0.0).sum()
    return found


def best_tree(weights: Tensor) -> tuple[list[int], list[int]]:
    """Parents and order of the spanning tree with the largest sum of weights (C, C), by Prim's algorithm.

    The first column is the root, with parent -1. In the order, parents are before their children.
    """
    count = len(weights)
    parent, order = [-1] * count, [0]
    best = weights[0].clone()  # of each column to the tree
    nearest = [0] * count
    while len(order) < count:
        best[order] = -torch.inf
        new = int(best.argmax())
        parent[new] = nearest[new]
        order.append(new)
        for c in range(count):
            if c not in order and weights[new, c] > best[c]:
                best[c], nearest[c] = weights[new, c], new
    return parent, order
