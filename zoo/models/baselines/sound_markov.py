"""Markov chain of the codes of sounds."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from zoo.core.registry import register
from zoo.core.signature import Positive
from zoo.core.spaces import Audio
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import ExactLikelihood
from zoo.models.baselines.base import Fitted
from zoo.nn.blocks.mu_law import LEVELS, mu_law_decode, mu_law_encode
from zoo.nn.distributions.likelihoods import LikelihoodKind


@register("model", "sound_markov")
class SoundMarkov(ExactLikelihood, Fitted):
    """Markov chain over mu-law codes: a code depends on the one before, by counting.

    Counts are interpolated with the frequencies of the codes: (n_ab + c p_b) / (n_a + c). The first code has these
    frequencies. Channels are independent. Before fitting, all codes are equally likely.

    Args:
        spec: of the sounds.
        pseudo_count: weight c of the frequencies.
    """

    accepts = (Audio,)
    likelihood_kind: LikelihoodKind = "discrete"
    paper = "Shannon 1948 (Bell System Technical Journal 27)"
    table: Tensor  # (LEVELS + 1, LEVELS) float64, log-probabilities given the code before; last, of the first code

    def __init__(self, spec: DataSpec, *, pseudo_count: Positive = 10.0) -> None:
        super().__init__(spec)
        self.pseudo_count = pseudo_count
        self.register_buffer("table", -torch.full((LEVELS + 1, LEVELS), LEVELS, dtype=torch.float64).log())

    def statistics(self, batch: Batch) -> Tensor:
        """Codes, one byte each."""
        return mu_law_encode(batch.x).to(torch.uint8)

    def fit(self, data: Tensor) -> None:
        """Count codes (N, C, T) and pairs of neighbours."""
        pairs = torch.zeros(LEVELS * LEVELS, dtype=torch.float64)
        single = torch.zeros(LEVELS, dtype=torch.float64)
        for part in data.split(256):
            codes = part.long()
            single += torch.bincount(codes.flatten(), minlength=LEVELS)
            pairs += torch.bincount((codes[..., :-1] * LEVELS + codes[..., 1:]).flatten(), minlength=LEVELS**2)
        counts = pairs.view(LEVELS, LEVELS)
        share = (single + 1) / (single.sum() + LEVELS)
        table = (counts + self.pseudo_count * share) / (counts.sum(1, keepdim=True) + self.pseudo_count)
        self.table.copy_(torch.cat([table, share[None]]).log())

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-probability of the codes of sounds (B, C, T), nats (B,)."""
        codes = mu_law_encode(x)
        before = pad(codes[..., :-1], (1, 0), value=LEVELS)
        return self.table[before, codes].flatten(1).sum(1).to(x.dtype)

    @torch.no_grad()
    def sample(self, n: int, *, condition: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Sounds (n, C, T), decoded from codes, code by code."""
        self.check_condition(condition)
        u = torch.rand(n, *self.spec.shape, generator=generator).to(self.table)
        below = self.table.exp().cumsum(1)[:, :-1]
        code, made = torch.full(u.shape[:2], LEVELS, device=u.device), list[Tensor]()
        for each in u.unbind(2):
            code = (below[code] <= each[..., None]).sum(2)
            made.append(code)
        return mu_law_decode(torch.stack(made, 2)).float()
