"""Vendi score: a reference-free measure of diversity."""

import torch
from torch import Tensor
from torch.nn import functional as F


def vendi(x: Tensor) -> float:
    """Vendi score of non-zero vectors (N, D): their effective number, from 1 to min(N, D).

    exp(-sum p log p) over the eigenvalues p of K / N, with K the cosine similarities (Friedman & Dieng 2022,
    2210.02410, definition 3.1). K and the second moments (D, D) share their non-zero eigenvalues, so the smaller matrix
    is used. Non-negative vectors, such as activations after a ReLU, have large cosines and score low. Compare values
    with those of real data in the same features.
    """
    x = F.normalize(x.double(), dim=1)
    gram = x.T @ x if len(x) > x.shape[1] else x @ x.T
    p = torch.linalg.eigvalsh(gram / len(x)).clamp(min=0)
    return float(torch.special.entr(p).sum().exp())
