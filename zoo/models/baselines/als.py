"""Matrix factorisation of implicit feedback by alternating least squares."""

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import NonNegative, Positive, PositiveInt
from zoo.core.spaces import Interactions
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.models.baselines.base import Fitted
from zoo.models.recommender_mixin import RecommenderMixin
from zoo.models.results import Curve

PART = 512  # users or items whose equations are solved together


@register("model", "als")
class ALS(RecommenderMixin, Fitted):
    """Matrix factorisation of implicit feedback by alternating least squares (Hu, Koren & Volinsky 2008).

    A user and an item have a vector each. Over both, it minimises
    sum of c_ui (p_ui - x_u . y_i)^2 + l2 (|x_u|^2 + |y_i|^2), for p_ui = 1 and c_ui = 1 + alpha where user u chose item
    i, and p_ui = 0 and c_ui = 1 elsewhere (equation 3). Users are solved exactly given the items, then items given the
    users (equations 4 and 5). A new user is solved likewise, so that all users are treated alike. `loss` is a user's
    part of the objective. Before fitting, all vectors of items are zero.

    Args:
        spec: what the data looks like.
        n_factors: size of the vectors.
        alpha: added to the weight of chosen items.
        l2: weight of the squares of the vectors.
        n_rounds: solutions of all users, each followed by all items.
        seed: of the first vectors of items.
    """

    paper = "Hu, Koren & Volinsky 2008 (ICDM)"
    accepts = (Interactions,)
    fit_on = 1_000_000_000  # users, so all
    items: Tensor  # (I, n_factors)
    objective: Tensor  # per user, after each round, (n_rounds,)

    def __init__(
        self,
        spec: DataSpec,
        *,
        n_factors: PositiveInt = 16,
        alpha: NonNegative = 4.0,
        l2: Positive = 30.0,
        n_rounds: PositiveInt = 15,
        seed: int = 0,
    ) -> None:
        super().__init__(spec)
        self.alpha, self.l2, self.n_rounds, self.seed = alpha, l2, n_rounds, seed
        self.register_buffer("items", torch.zeros(spec.size, n_factors))
        self.register_buffer("objective", torch.zeros(n_rounds))

    def statistics(self, batch: Batch) -> Tensor:
        """Interactions, bool (B, I)."""
        return batch.x > 0

    def fit(self, data: Tensor) -> None:
        """Alternate in double precision, for interactions (N, I)."""
        generator = make_generator(self.seed)
        items = 0.1 * torch.randn(self.items.shape, generator=generator, dtype=torch.float64)
        for number in range(self.n_rounds):
            users = solve(data, items, self.alpha, self.l2)  # (N, D)
            items = solve(data.T, users, self.alpha, self.l2)  # (I, D)
            errors = squared_errors(data, users, items, self.alpha).sum()
            total = errors + self.l2 * (users.square().sum() + items.square().sum())
            self.objective[number] = total / len(data)
        self.items.copy_(items)

    def score_items(self, x: Tensor) -> Tensor:
        """Interactions (B, I) -> products of the users' vectors and those of the items, (B, I)."""
        with torch.autocast(x.device.type, enabled=False):
            items = self.items.double()
            return (solve(x > 0, items, self.alpha, self.l2) @ items.T).float()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted squared error and l2 |x_u|^2 per user."""
        with torch.autocast(batch.x.device.type, enabled=False):
            items = self.items.double()
            users = solve(batch.x > 0, items, self.alpha, self.l2)
            errors = squared_errors(batch.x > 0, users, items, self.alpha)
            return {"loss": (errors + self.l2 * users.square().sum(1)).mean().float()}

    def curves(self) -> list[Curve]:
        """The objective per user after each round; it never rises."""
        rounds = torch.arange(1, self.n_rounds + 1, dtype=torch.float32)
        return [Curve("objective", rounds, self.objective.cpu(), "round")]


def solve(chosen: Tensor, others: Tensor, alpha: float, l2: float) -> Tensor:
    """Vectors (N, D) with the least weighted squared error and penalty, given those of the other side.

    The equations are (Y' C Y + l2 I) x = Y' C p. Here Y' C Y is Y' Y + alpha times the sum of y y' over chosen ones.

    Args:
        chosen: bool (N, M).
        others: vectors (M, D).
        alpha: added to the weight of chosen ones.
        l2: weight of the squares.
    """
    n = others.shape[1]
    outer = (others[:, :, None] * others[:, None]).flatten(1)  # (M, D * D)
    base = others.T @ others + l2 * torch.eye(n, dtype=others.dtype, device=others.device)
    found = []
    for part in chosen.split(PART):
        weight = part.to(others.dtype)  # (P, M)
        gram = base + alpha * (weight @ outer).unflatten(1, (n, n))  # (P, D, D)
        found.append(torch.linalg.solve(gram, (1 + alpha) * weight @ others))
    return torch.cat(found)


def squared_errors(chosen: Tensor, users: Tensor, items: Tensor, alpha: float) -> Tensor:
    """Weighted squared error of each user (N,), for interactions (N, I) and vectors (N, D) and (I, D)."""
    parts = []
    for part, vectors in zip(chosen.split(PART), users.split(PART), strict=True):
        wanted = part.to(users.dtype)
        parts.append(((1 + alpha * wanted) * (wanted - vectors @ items.T).square()).sum(1))
    return torch.cat(parts)
