"""A table that is made from a known law, so that likelihoods have an exact reference."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Binomial, Normal

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.loader import make_generator
from zoo.data.table.rows import Rows, Texts

REGIONS = ("east", "north", "south", "west")
SHARES = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
CHANCES = torch.tensor([0.1, 0.3, 0.5, 0.7], dtype=torch.float64)  # of each of six children
INCOMES = torch.tensor([30.0, 20.0, 50.0, 40.0], dtype=torch.float64)
SILENT = torch.tensor([0.05, 0.1, 0.2, 0.4], dtype=torch.float64)  # chance of a missing income
MOST, DEVIATION, STEP = 6, 5.0, 0.1
DAYS = 28  # of February 2026
FIRST = 20_485  # 1 February 2026, in days since 1970


@register("data", "synthetic_table")
class SyntheticTable(Rows):
    """Synthetic households drawn from a known law: region, children, income with missing values, date; 10,000 rows.

    The region has four categories. Each of six possible children is there with a chance of the region. The income is
    normal around a mean of region and children, in steps of 0.1, and is missing with a chance of the region. The date
    is a day of February 2026, the later the more children. `log_prob` is the exact law.

    Args:
        n_rows: of all three splits.
        batch_size: rows per batch.
        seed: seed of the training order; the rows do not depend on it.
    """

    licence = "generated"
    names: ClassVar[tuple[str, ...]] = ("region", "children", "income", "visit")

    def __init__(self, *, n_rows: PositiveInt = 10_000, batch_size: PositiveInt = 128, seed: int = 0) -> None:
        super().__init__(
            types=["region:category", "children:number", "income:number", "visit:date"],
            target="region",
            batch_size=batch_size,
            seed=seed,
        )
        self.n_rows = n_rows

    def read(self) -> Texts:
        """Draw the rows."""
        cells = draw(self.n_rows, make_generator(7))
        region, children, income, visit = cells.T.tolist()
        return {
            "region": [REGIONS[int(code)] for code in region],
            "children": [f"{n:.0f}" for n in children],
            "income": ["" if math.isnan(v) else f"{v:.1f}" for v in income],
            "visit": [f"2026-02-{int(day) - FIRST + 1:02}" for day in visit],
        }

    def log_prob(self, cells: Tensor) -> Tensor:
        """Exact log-probability of cells (N, 4) in nats (N,): region, children, income, visit."""
        return log_prob(cells)


def draw(n: int, generator: torch.Generator) -> Tensor:
    """Cells (n, 4) float64 of the law."""
    u = torch.rand(n, 4 + MOST, dtype=torch.float64, generator=generator)
    region = (u[:, :1] >= SHARES.cumsum(0)[:-1]).sum(1)
    children = (u[:, 4:] < CHANCES[region][:, None]).sum(1)
    noise = torch.randn(n, dtype=torch.float64, generator=generator)
    income = ((mean_income(region, children) + DEVIATION * noise) / STEP).round() * STEP
    income = income.masked_fill(u[:, 1] < SILENT[region], torch.nan)
    visit = (u[:, 2:3] >= day_chances(children).cumsum(1)[:, :-1]).sum(1)
    return torch.stack([region.double(), children.double(), income, FIRST + visit.double()], 1)


def log_prob(cells: Tensor) -> Tensor:
    """Exact log-probability of cells (N, 4), nats (N,)."""
    region, children = cells[:, 0].long(), cells[:, 1]
    income, visit = cells[:, 2], (cells[:, 3] - FIRST).long()
    nats = SHARES[region].log() + Binomial(MOST, CHANCES[region]).log_prob(children)
    law, given = Normal(mean_income(region, children), DEVIATION), income.nan_to_num(0)
    mass = law.cdf(given + STEP / 2) - law.cdf(given - STEP / 2)
    missing = SILENT[region]
    nats = nats + torch.where(income.isnan(), missing.log(), (1 - missing).log() + mass.clamp(min=1e-300).log())
    return nats + day_chances(children).gather(1, visit[:, None])[:, 0].log()


def mean_income(region: Tensor, children: Tensor) -> Tensor:
    """Mean of the income of a region and a number of children, (N,)."""
    return INCOMES[region] + 3.0 * children


def day_chances(children: Tensor) -> Tensor:
    """Chances (N, 28) of the days of the month: they rise with the number of children."""
    days = torch.linspace(-1, 1, DAYS, dtype=torch.float64)
    return ((children[:, None] - MOST / 2) * days).softmax(1)
