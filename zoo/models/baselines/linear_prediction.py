"""Linear prediction of sounds."""

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Audio
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import ExactLikelihood
from zoo.models.baselines.base import Fitted
from zoo.models.baselines.gaussian_copula import log_share
from zoo.nn.blocks.mu_law import LEVELS, mu_law_decode, mu_law_encode
from zoo.nn.distributions.likelihoods import LikelihoodKind
from zoo.nn.samplers.noise import normal

RIDGE = 1e-8  # of the variance, so that silence has a distribution


@register("model", "linear_prediction")
class LinearPrediction(ExactLikelihood, Fitted):
    """Linear prediction of sounds, AR(p): a sample is a linear function of the last ones plus normal noise.

    The likelihood is that of mu-law codes, as of `wavenet`: the mass of the normal distribution in the cell of a code.
    The samples before are the decoded ones, and silence before the beginning. Coefficients are those of least squares.
    Channels are independent and have equal coefficients. Before fitting, samples are independent.

    Args:
        spec: of the sounds.
        order: samples that a sample depends on.
    """

    accepts = (Audio,)
    likelihood_kind: LikelihoodKind = "discrete"
    paper = "Atal & Hanauer 1971 (Journal of the Acoustical Society of America 50)"
    weight: Tensor  # (order,) float64, from the newest sample
    std: Tensor  # () float64, of the noise

    def __init__(self, spec: DataSpec, *, order: PositiveInt = 2) -> None:
        super().__init__(spec)
        self.order = order
        self.register_buffer("weight", torch.zeros(order, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(0.1, dtype=torch.float64))

    def statistics(self, batch: Batch) -> Tensor:
        """Codes, one byte each."""
        return mu_law_encode(batch.x).to(torch.uint8)

    def fit(self, data: Tensor) -> None:
        """Least squares from the moments of codes (N, C, T)."""
        count = self.order + 1
        moments = torch.zeros(count, count, dtype=torch.float64)
        for part in data.split(64):
            lagged = self.lagged(mu_law_decode(part).double(), count).flatten(0, -2)  # (n C T, order + 1)
            moments += lagged.T @ lagged
        square = moments[0, 0].clamp(min=1e-12)
        ridge = RIDGE * square * torch.eye(self.order, dtype=torch.float64)
        weight = torch.linalg.solve(moments[1:, 1:] + ridge, moments[1:, 0])
        self.weight.copy_(weight)
        noise = moments[0, 0] - weight @ moments[1:, 0]
        self.std.copy_((noise.clamp(min=RIDGE * square) / data.numel()).sqrt())

    @staticmethod
    def lagged(x: Tensor, count: int) -> Tensor:
        """The sample and those before it, (..., T) -> (..., T, count); silence before the beginning."""
        return torch.nn.functional.pad(x, (count - 1, 0)).unfold(-1, count, 1).flip(-1)

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-probability of the codes of sounds (B, C, T), nats (B,)."""
        codes = mu_law_encode(x)
        decoded = mu_law_decode(codes).to(self.weight)
        mean = self.lagged(decoded, self.order + 1)[..., 1:] @ self.weight  # (B, C, T)
        borders = cell_borders().to(self.weight)
        nats = log_share((borders[codes] - mean) / self.std, (borders[codes + 1] - mean) / self.std)
        return nats.flatten(1).sum(1).to(x.dtype)

    @torch.no_grad()
    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Sounds (n, C, T), decoded from codes, sample by sample."""
        self.check_condition(condition)
        noise = normal(n, *self.spec.shape, generator=generator).to(self.weight)
        past, made = noise.new_zeros(*noise.shape[:2], self.order), list[Tensor]()
        for e in noise.unbind(2):
            drawn = past @ self.weight + self.std * e
            made.append(mu_law_decode(mu_law_encode(drawn)).to(self.weight))
            past = torch.cat([made[-1][..., None], past[..., :-1]], 2)
        return torch.stack(made, 2).float()


def cell_borders() -> Tensor:
    """Borders of the cells of samples that have each code, (LEVELS + 1,) float64, infinite at the ends."""
    middles = (torch.arange(LEVELS - 1, dtype=torch.float64) + 0.5) / (LEVELS - 1) * 2 - 1
    inner = middles.sign() * torch.expm1(middles.abs() * torch.log(torch.tensor(LEVELS, dtype=torch.float64)))
    ends = torch.full((1,), torch.inf, dtype=torch.float64)
    return torch.cat([-ends, inner / (LEVELS - 1), ends])
