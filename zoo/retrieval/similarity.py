"""Similarities of vectors, and the exact k nearest."""

from typing import Literal, get_args

import torch
from torch import Tensor

Similarity = Literal["cosine", "euclidean", "inner_product", "jaccard"]
SIMILARITIES: tuple[str, ...] = get_args(Similarity)
BLOCK = 2**14  # vectors that are compared at a time by jaccard


def prepared(x: Tensor, similarity: Similarity) -> Tensor:
    """Vectors (N, D) as they are compared: float32, for cosine of length one; a zero vector stays zero."""
    x = x.float()
    return torch.nn.functional.normalize(x, dim=-1) if similarity == "cosine" else x


def similarities(query: Tensor, vectors: Tensor, similarity: Similarity) -> Tensor:
    """Similarity of prepared queries (Q, D) and vectors (N, D): (Q, N), higher is nearer.

    `euclidean` is the negative distance. `jaccard` is the sum of minima over the sum of maxima (Jaccard 1912). It
    needs vectors without negative values; two zero vectors are equal.
    """
    if similarity in ("cosine", "inner_product"):
        return query @ vectors.T
    if similarity == "euclidean":
        return -torch.cdist(query, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    parts = []
    for some in vectors.split(BLOCK):
        both = torch.minimum(query[:, None], some).sum(2)
        either = torch.maximum(query[:, None], some).sum(2)
        parts.append(torch.where(either > 0, both / either.clamp(min=1e-30), 1.0))
    return torch.cat(parts, 1) if parts else query.new_zeros(len(query), 0)


def nearest(scores: Tensor, k: int) -> Tensor:
    """Indices (k,) of the highest scores (N,), highest first; of equal ones, the lower index first."""
    if k < len(scores):
        least = scores.topk(k).values[-1]
        index = (scores >= least).nonzero()[:, 0]
    else:
        index = torch.arange(len(scores), device=scores.device)
    return index[scores[index].sort(descending=True, stable=True).indices][:k]
