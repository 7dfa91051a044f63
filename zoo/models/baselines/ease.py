"""EASE: a linear item-to-item model in closed form."""

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import Positive
from zoo.core.spaces import Interactions
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.baselines.base import Fitted
from zoo.models.recommender_mixin import RecommenderMixin


@register("model", "ease")
class EASE(RecommenderMixin, Fitted):
    """Embarrassingly shallow autoencoder: each item is a linear function of the others, in closed form.

    Minimises |X - X B|^2 + l2 |B|^2 over B with a zero diagonal, for the interactions X of the training users. With
    P = (X'X + l2 I)^-1, the weights are B_ij = -P_ij / P_jj (equation 8). A score is an entry of x B. `loss` is the
    squared error per user. Before fitting, all weights are zero.

    Args:
        spec: what the data looks like.
        l2: weight of the squares of B; larger for more users.
    """

    paper = "Steck 2019 (arXiv:1905.03375)"
    accepts = (Interactions,)
    fit_on = 1_000_000_000  # users, so all
    weights: Tensor  # B, (I, I)

    def __init__(self, spec: DataSpec, *, l2: Positive = 300.0) -> None:
        super().__init__(spec)
        self.l2 = l2
        self.register_buffer("weights", torch.zeros(spec.size, spec.size))

    def statistics(self, batch: Batch) -> Tensor:
        """Interactions, bool (B, I)."""
        return batch.x > 0

    def fit(self, data: Tensor) -> None:
        """Compute the weights in double precision, from interactions (N, I)."""
        gram = torch.zeros(data.shape[1], data.shape[1], dtype=torch.float64)
        for part in data.split(4096):
            gram += part.double().T @ part.double()
        inverse = torch.linalg.inv(gram + self.l2 * torch.eye(len(gram), dtype=torch.float64))
        weights = -inverse / inverse.diagonal()
        self.weights.copy_(weights.fill_diagonal_(0))

    def score_items(self, x: Tensor) -> Tensor:
        """Interactions (B, I) -> x B, (B, I)."""
        with torch.autocast(x.device.type, enabled=False):
            return x.to(self.weights.dtype) @ self.weights

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Squared error |x - x B|^2 per user."""
        return {"loss": (batch.x - self.score_items(batch.x)).square().sum(1).mean()}
