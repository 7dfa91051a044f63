"""Probes of features: how well simple classifiers read a label from them."""

import torch
from torch import Tensor
from torch.nn import functional as F

NEIGHBOURS = 5
PART = 1000  # vectors that are compared with all others at once


def knn_hits(known: Tensor, labels: Tensor, x: Tensor, y: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """Whether a vote of the k nearest known vectors by cosine is right, 0 or 1, (M,).

    Where classes have equally many votes, the sum of the cosines decides.

    Args:
        known: vectors (N, D).
        labels: their classes (N,).
        x: vectors to classify (M, D).
        y: their classes (M,).
        k: at most N.
    """
    known, one_hot = F.normalize(known.double(), dim=1), F.one_hot(labels).double()
    found = []
    for part in F.normalize(x.double(), dim=1).split(PART):
        near = (part @ known.T).topk(min(k, len(known)), dim=1)  # (P, k)
        votes = one_hot[near.indices]  # (P, k, classes)
        weight = 1 + (near.values[:, :, None] - 1) / (4 * k)  # ties alone: a vote is 1, less at most half a vote of all
        found.append((votes * weight).sum(1).argmax(1))
    return (torch.cat(found) == y).double()


def linear_hits(known: Tensor, labels: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Whether a linear classifier of standardised vectors is right, 0 or 1, (M,); the arguments of `knn_hits`.

    It is a multinomial logistic regression with scikit-learn's default L2 penalty (C = 1), which has one optimum.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(known.double().numpy(), labels.numpy())
    return (torch.from_numpy(classifier.predict(x.double().numpy())) == y).double()
