"""Autoregression over the columns of a table, in any order."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Table
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.table.cells import rows_to_draw
from zoo.data.table.constraints import constrained
from zoo.models.abilities import ExactLikelihood
from zoo.models.base import Model
from zoo.nn.distributions.table import TableLikelihood
from zoo.nn.networks.components import Encoder
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.noise import fork

ROWS = 16_384  # most rows that the network sees at once


@register("model", "table_autoregressive")
class TableAutoregressive(ExactLikelihood, Model):
    """Order-agnostic autoregression over columns: one network predicts each column from any others.

    Its input is the row with hidden columns, and marks of those that are visible. In training, a random number of
    columns in a random order is visible. The loss is an unbiased estimate of the mean negative log-likelihood over all
    orders (Uria et al. 2014, equation 9). `log_prob` is exact for the order of the columns, which is that of samples,
    and costs one pass for each column. Validation measures it. Because any columns may be visible, the model fills in
    missing cells and samples under conditions.

    Args:
        spec: of the table.
        n_components: logistics in the mixture of each number.
        optimizer: with its learning rate and schedule.
        encoder: network of the row and the marks -> parameters of all columns.
    """

    accepts = (Table,)
    paper = "Uria, Murray & Larochelle 2014 (arXiv:1310.1757); Tiwald et al. 2025 (arXiv:2501.12012)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        n_components: PositiveInt = 5,
        optimizer: Optimizer = "adamw",
        encoder: Encoder = "mlp",
    ) -> None:
        super().__init__(spec)
        self.likelihood = TableLikelihood(spec, n_components=n_components)
        self.likelihood_kind = self.likelihood.kind
        self.codec = self.likelihood.codec
        self.n_blocks = len(self.codec.blocks)
        (n_params,) = self.likelihood.params_shape
        self.encoder = self.build_component("encoder", "encoder", (spec.size + self.n_blocks,), n_params)

    def params(self, x: Tensor, visible: Tensor) -> Tensor:
        """Parameters (B, P) of all blocks from rows (B, F) and which blocks are visible, bool (B, n_blocks)."""
        seen = x.masked_fill(~self.codec.spread(visible), 0.0)
        return self.encoder(torch.cat([seen, visible.to(x.dtype)], 1))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """In training, the estimate from one order and one number of visible columns; else the exact loss."""
        x = batch.x
        if not self.training:
            return {"loss": -self.log_prob(x).mean()}
        count = self.n_blocks
        rank = torch.rand(len(x), count, device=x.device).argsort(1)  # place of each block in the order
        seen = torch.randint(count, (len(x), 1), device=x.device)
        visible = rank < seen
        nats = self.likelihood.block_log_probs(self.params(x, visible), x).masked_fill(visible, 0.0)
        return {"loss": -(nats.sum(1) * count / (count - seen[:, 0])).mean()}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-likelihood of rows (B, F) in the order of the columns, nats (B,)."""
        count, marks = self.n_blocks, torch.ones(self.n_blocks, self.n_blocks, device=x.device).tril(-1).bool()
        rows = max(ROWS // count, 1)
        if len(x) > rows:
            return torch.cat([self.log_prob(some) for some in x.split(rows)])
        repeated = x.repeat_interleave(count, 0)  # row b for each of its blocks
        params = self.params(repeated, marks.repeat(len(x), 1))
        nats = self.likelihood.block_log_probs(params, repeated).unflatten(0, (len(x), count))
        return nats.diagonal(dim1=1, dim2=2).sum(1)

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
        """Rows (n, F), column by column.

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
        """Rows (B, F) with new values in the columns that the mask (B or 1, F) holds, given the others."""
        self.check_condition(condition)
        hidden = self.codec.masked(mask.expand_as(x))
        u = torch.rand(len(x), self.n_blocks, 2, generator=fork(generator, "cells")).to(x)
        torch.rand(1, generator=generator)  # the next call draws other numbers
        parts: list[Any] = [x[:, block.places] for block in self.codec.blocks]
        for number, block in enumerate(self.codec.blocks):
            if not bool(hidden[:, number].any()):
                continue
            row = torch.cat(parts, 1)
            visible = ~hidden
            visible[:, :number] = True  # drawn already
            drawn = self.likelihood.draw_block(number, self.params(row, visible), u[:, number])
            if not block.choice:
                drawn = self.snapped(number, drawn, row)
            parts[number] = torch.where(hidden[:, number : number + 1], drawn.to(x.dtype), parts[number])
        return torch.cat(parts, 1)

    def snapped(self, number: int, score: Tensor, row: Tensor) -> Tensor:
        """A drawn score (B, 1) as that of a possible number, and 0 where the number is missing."""
        places = F.one_hot(torch.tensor(self.codec.blocks[number].start), self.spec.size).to(row)
        full = row * (1 - places) + score * places
        return self.codec.snap(full)[:, self.codec.blocks[number].places]
