"""GloVe: word vectors whose inner products are logarithms of co-occurrence counts."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import NonNegative, PositiveInt
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.baselines.base import resize
from zoo.models.embedding.base import WordEmbedding
from zoo.models.embedding.windows import context_windows
from zoo.nn.optim.components import Optimizer


@register("model", "glove")
class GloVe(WordEmbedding):
    """GloVe: weighted least squares on logarithms of co-occurrence counts (equation 8 of the paper).

    Two words that are d words apart co-occur 1 / d times. The counts of the training text are collected once. `loss`
    then visits the pairs of a batch, each divided by its count: summed over the text, this is the published objective.
    It is reported as the mean over the co-occurrences of the batch. Pairs that the training text does not have are left
    out. Before the training, every pair counts once.

    Args:
        spec: what the data looks like.
        dim: of the vectors.
        window: most words between two words that co-occur.
        x_max: count from which on a pair has weight 1.
        alpha: weight of rarer pairs, (count / x_max)^alpha.
        optimizer: with its learning rate and schedule.
    """

    paper = "Pennington, Socher & Manning 2014 (EMNLP, doi:10.3115/v1/D14-1162)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        dim: PositiveInt = 100,
        window: PositiveInt = 10,
        x_max: NonNegative = 10.0,
        alpha: NonNegative = 0.75,
        optimizer: Optimizer = "adamw",
    ) -> None:
        super().__init__(spec)
        size = spec.tokens.vocab_size
        self.window, self.x_max, self.alpha = window, x_max, alpha
        self.center, self.context = (nn.Parameter((torch.rand(size, dim) - 0.5) / dim) for _ in range(2))
        self.center_bias, self.context_bias = (nn.Parameter(torch.zeros(size, 1)) for _ in range(2))
        self.register_buffer("pairs", torch.empty(0, dtype=torch.int64))  # center V + context, increasing (N,)
        self.register_buffer("cooccurrences", torch.empty(0))  # of each pair (N,)
        self.pairs: Tensor
        self.cooccurrences: Tensor

    def vectors(self) -> Tensor:
        """Sum of the two vectors of every token (V, D), as published."""
        return self.center + self.context

    # -- co-occurrences ----------------------------------------------------------------------------------------

    def on_counted(self) -> None:
        """Collect the co-occurrences of the training text."""
        found = self.read_training_text(self.count_pairs)
        self.pairs, self.cooccurrences = add_up(found[:, 0].long(), found[:, 1])

    def visits(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of a batch: centers (M, C), contexts (M, W), and co-occurrences of each two, 0 or 1 / d (M, C, W)."""
        tokens, keep = self.words_of(batch)
        w = context_windows(tokens, keep, self.ends_of(batch), torch.full_like(tokens, self.window), self.window)
        return w.centers, w.contexts, w.pairs / w.distance.clamp(min=1)

    def count_pairs(self, batch: Batch) -> Tensor:
        """Pairs of a batch and their co-occurrences, float64 (N, 2)."""
        centers, contexts, times = self.visits(batch)
        keys = centers[..., None] * len(self.counts) + contexts[:, None]  # (M, C, W)
        return torch.stack([part.double() for part in add_up(keys[times > 0], times[times > 0])], 1)

    def resize_buffers_like(self, weights: Mapping[str, Tensor]) -> None:
        """Resize every buffer as in the weights."""
        resize(self, weights)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        resize(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    # -- objective -------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted squared error of log counts, a mean over the co-occurrences of the batch."""
        centers, contexts, times = self.visits(batch)
        scores = torch.bmm(F.embedding(centers, self.center), F.embedding(contexts, self.context).transpose(1, 2))
        scores = scores + F.embedding(centers, self.center_bias) + F.embedding(contexts, self.context_bias).mT
        if len(self.pairs):
            keys = centers[..., None] * len(self.counts) + contexts[:, None]  # (M, C, W)
            place = torch.searchsorted(self.pairs, keys).clamp(max=len(self.pairs) - 1)
            known = self.pairs[place] == keys
            x, times = torch.where(known, self.cooccurrences[place], 1), times * known
        else:
            x = torch.ones_like(times)
        weight = (x / self.x_max).clamp(max=1) ** self.alpha / x
        errors = (scores - x.log()).square()
        return {"loss": (times * weight * errors).sum() / times.sum().clamp(min=1e-9)}

    def modules_to_compile(self) -> list[nn.Module]:
        """None."""
        return []


def add_up(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct keys (N,) in increasing order, and the sums of their values."""
    distinct, place = keys.unique(return_inverse=True)
    sums = torch.zeros(len(distinct), dtype=torch.float64, device=keys.device)
    return distinct, sums.index_add_(0, place, values.double()).float()
