"""How many different samples are there? A number that needs no reference."""

import torch
from torch import Tensor
from torch.nn import functional as F


def vendi(x: Tensor) -> float:
    """Vendi score of vectors (N, D), none of them zero: their effective number, from 1 to min(N, D).

    exp(-sum p log p) over the eigenvalues p of K / N, with K the cosines of all pairs (Friedman & Dieng 2022,
    2210.02410, definition 3.1); K and the second moments (D, D) have the same eigenvalues but for zeros, so
    the smaller is taken. Vectors of one sign, such as activations after a ReLU, have a large cosine in common
    and score low: compare values with that of real data in the same features.
    """
    x = F.normalize(x.double(), dim=1)
    gram = x.T @ x if len(x) > x.shape[1] else x @ x.T
    p = torch.linalg.eigvalsh(gram / len(x)).clamp(min=0)
    return float(torch.special.entr(p).sum().exp())
