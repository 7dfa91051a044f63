"""Classifier two-sample test (C2ST; Lopez-Paz & Oquab 2016, 1610.06545)."""

import math

import torch
from torch import Tensor

MAX_SAMPLES = 5000  # vectors per set: a standard error of 0.5 %
FOLDS = 5


def two_sample_accuracy(x: Tensor, y: Tensor, seed: int = 0) -> float:
    """Cross-validated accuracy of logistic regression between x (N, D) and y (M, D): 0.5 is ideal, 1 is separable.

    Equal numbers of both, at most `MAX_SAMPLES`, are drawn, standardised and split into `FOLDS` folds. A linear
    classifier detects only a shift of the mean, so the features determine the test's power. For equal distributions the
    accuracy is about 0.5, within `standard_error`.

    Raises:
        ValueError: a set has fewer than `FOLDS` vectors.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n = set_size(len(x), len(y))
    generator = torch.Generator().manual_seed(seed)
    both = torch.cat([t.double().cpu()[torch.randperm(len(t), generator=generator)[:n]] for t in (x, y)])
    label = [0] * n + [1] * n
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return float(cross_val_score(classifier, both.numpy(), label, cv=folds).mean())


def set_size(n: int, m: int) -> int:
    """Number of vectors used per set, for sets of n and m."""
    return min(n, m, MAX_SAMPLES)


def standard_error(n: int) -> float:
    """Standard error of the accuracy with n vectors per set of equal distributions: binomial, 0.5 / sqrt(2 n).

    The folds share training data, which widens it up to 1.35 times (measured with 50 to 500 vectors of 2 to 200
    dimensions).
    """
    return 0.5 / math.sqrt(2 * n)
