"""Likelihood of rows of mixed columns: softmax for categories, mixtures of logistics for numbers."""

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Table
from zoo.core.spec import DataSpec
from zoo.nn.blocks.constants import FixedConstants
from zoo.nn.blocks.table_codec import Block, TableCodec
from zoo.nn.distributions.likelihoods import Likelihood, at_least_float32, soft_clamp

LOG_SCALE_BOUND = 6.0  # of a logistic, in standard normal scores
START_LOG_SCALE = -0.6  # the logistic with the variance of a standard normal
SPREAD = 1.5  # first locations of the components, in scores
OPEN = 1e-6  # away from 0 and 1, of a uniform number


@register("likelihood", "table")
class TableLikelihood(FixedConstants, Likelihood):
    """Independent columns given the parameters: a softmax for each choice, and logistics for each number.

    A number on a grid has the probability of its cell (Salimans et al. 2017, arXiv:1701.05517, equation 2). It is that
    of a mixture of logistics, in standard normal scores, between the borders of the cell. The outermost cells are open.
    A real number has a density in units of the data. A missing number adds only the probability that it is missing.

    Args:
        spec: of the table.
        n_components: logistics in each mixture.

    Raises:
        ZooError: other data than a table.
    """

    log_unit: Tensor  # (M,)

    def __init__(self, spec: DataSpec, *, n_components: PositiveInt = 1) -> None:
        super().__init__(spec)
        if not isinstance(spec.x, Table):
            raise ZooError(f"likelihood=table: {spec} has no columns. Choose model.likelihood=gaussian.")
        self.codec = TableCodec(spec.x)
        columns = self.codec.columns
        real = any(column.numeric and not column.step for column in columns)
        self.kind = "continuous" if real else "discrete"
        self.n_components = n_components
        self.sizes = [block.size if block.choice else 3 * n_components for block in self.codec.blocks]
        self.starts = [sum(self.sizes[:i]) for i in range(len(self.sizes))]
        units = [columns[block.column].unit for block in self.codec.score_blocks]
        self.register_buffer("log_unit", torch.tensor(units).log(), persistent=False)

    @property
    def params_shape(self) -> tuple[int, ...]:
        """Number of parameters: one for each place of a choice, three for each logistic."""
        return (sum(self.sizes),)

    # -- probabilities -----------------------------------------------------------------------------------------------

    def block_log_probs(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-probability of each block of encoded rows (B, F), nats (B, n_blocks)."""
        params, found = at_least_float32(params), []
        scored = self._log_prob_of_scores(params, x) if self.codec.score_blocks else None
        for number, block in enumerate(self.codec.blocks):
            if block.choice:
                logits = self._of(params, number).log_softmax(1)
                found.append((logits * x[:, block.places]).sum(1))
            elif scored is not None:
                nats = scored[:, block.scale]
                found.append(nats * (1 - x[:, block.gate]) if block.gate >= 0 else nats)
        return torch.stack(found, 1)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Log-probability of rows (B, F), nats (B,)."""
        return self.block_log_probs(params, x).sum(1)

    def _log_prob_of_scores(self, params: Tensor, x: Tensor) -> Tensor:
        """Of all numbers, (B, M)."""
        codec = self.codec
        z = x[:, codec.at].to(params.dtype)  # (B, M)
        t = codec.from_scores(z)
        t = torch.where(codec.grid, t.round(), t)
        slope = codec.slope(t)
        # A cell of a grid lies in one segment, so that its width is exact: no difference of its two borders.
        lower = codec.to_scores(t - 0.5)
        parts = torch.stack([self._of(params, i) for i, b in enumerate(codec.blocks) if not b.choice], 1)
        weight, location, scale = self.logistics(parts)  # (B, M, K)
        above = (lower[..., None] - location) / scale
        wide = slope[..., None] / scale
        from_below, from_above = F.logsigmoid(above + wide), F.logsigmoid(-above)
        cell = from_below + from_above + torch.log(-torch.expm1(-wide))
        cell = torch.where((t <= 0)[..., None], from_below, cell)
        last = codec.last.to(t.dtype)
        cell = torch.where((t >= last)[..., None], torch.where((last == 0)[:, None], 0.0, from_above), cell)
        point = (z[..., None] - location) / scale
        density = F.logsigmoid(point) + F.logsigmoid(-point) - scale.log()
        density = density + (slope.log() - self.log_unit.to(z.dtype))[..., None]
        return torch.logsumexp(weight + torch.where(codec.grid[:, None], cell, density), -1)

    def logistics(self, parts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weight, location and scale of each component, each (..., K), from parameters (..., 3 K)."""
        weight, location, raw = parts.unflatten(-1, (3, -1)).unbind(-2)
        k = self.n_components
        start = SPREAD * torch.linspace(-1, 1, k, device=parts.device) if k > 1 else 0.0
        return weight.log_softmax(-1), location + start, soft_clamp(raw + START_LOG_SCALE, LOG_SCALE_BOUND).exp()

    def _of(self, params: Tensor, number: int) -> Tensor:
        return params[:, self.starts[number] : self.starts[number] + self.sizes[number]]

    # -- rows --------------------------------------------------------------------------------------------------------

    def mean(self, params: Tensor) -> Tensor:
        """Probabilities of choices, and expected scores; (B, F)."""
        params, found = at_least_float32(params), []
        for number, block in enumerate(self.codec.blocks):
            part = self._of(params, number)
            if block.choice:
                found.append(part.softmax(1))
            else:
                weight, location, _ = self.logistics(part)
                found.append((weight.exp() * location).sum(1, keepdim=True))
        return torch.cat(found, 1)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One row for each of the parameters (B, P): encoded rows (B, F)."""
        u = torch.rand(len(params), len(self.codec.blocks), 2, generator=generator)
        return self.from_uniform(params, u.to(params.device))

    def from_uniform(self, params: Tensor, u: Tensor) -> Tensor:
        """The same from uniform numbers (B, n_blocks, 2)."""
        params = at_least_float32(params)
        drawn = [self.draw(block, self._of(params, i), u[:, i]) for i, block in enumerate(self.codec.blocks)]
        return self.codec.snap(torch.cat(drawn, 1))

    def draw(self, block: Block, part: Tensor, u: Tensor) -> Tensor:
        """Numbers of one block (B, size) from its parameters and uniform numbers (B, 2)."""
        logits = part if block.choice else self.logistics(part)[0]
        chosen = (logits.softmax(1).cumsum(1)[:, :-1] <= u[:, :1]).sum(1)  # (B,)
        if block.choice:
            return F.one_hot(chosen, block.size).to(part.dtype)
        _, location, scale = self.logistics(part)
        place = chosen[:, None]
        return location.gather(1, place) + scale.gather(1, place) * u[:, 1:].clamp(OPEN, 1 - OPEN).logit()

    def draw_block(self, number: int, params: Tensor, u: Tensor) -> Tensor:
        """The same, from the parameters of the whole row (B, P)."""
        return self.draw(self.codec.blocks[number], self._of(at_least_float32(params), number), u)
