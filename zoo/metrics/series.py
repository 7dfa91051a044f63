"""Scores of generated series: a classifier against real ones, and a predictor that is trained on them.

Both follow TimeGAN (Yoon, Jarrett & van der Schaar 2019, NeurIPS), with forests of trees in place of recurrent
networks. A score is then reproducible and takes seconds. Those of the paper are not comparable.
"""

import torch
from torch import Tensor

MAX_WINDOWS = 1_000  # of each set, in the classifier
FOLDS = 3
TREES = 100
LAGS = 8  # most steps that the predictor reads
MAX_ROWS = 4_000  # training rows of the predictor


def summaries(x: Tensor) -> Tensor:
    """Windows (N, T, D) -> their values, and autocovariances of values and of squares, (N, F) float64.

    Trees split single numbers. Without autocovariances, they would not see how neighbours depend on each other.
    """
    x = x.double()
    parts = [x.flatten(1)]
    for values in (x, x.square()):
        centred = values - values.mean(1, keepdim=True)
        lags = range(min(x.shape[1], 2 * LAGS))
        parts += [(centred[:, k:] * centred[:, : x.shape[1] - k]).mean(1) for k in lags]
    return torch.cat(parts, 1)


def discriminative_score(real: Tensor, fake: Tensor, seed: int = 0) -> float:
    """Cross-validated accuracy - 1/2 of a forest that separates real from generated windows (N, T, D): 0 is ideal.

    Equal numbers of both are used, at most `MAX_WINDOWS`.

    Raises:
        ValueError: a set has fewer than `FOLDS` windows.
    """
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    n = min(len(real), len(fake), MAX_WINDOWS)
    generator = torch.Generator().manual_seed(seed)
    both = torch.cat([x.cpu()[torch.randperm(len(x), generator=generator)[:n]] for x in (real, fake)])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    forest = ExtraTreesClassifier(TREES, min_samples_leaf=2, random_state=seed)
    label = [0] * n + [1] * n
    return float(cross_val_score(forest, summaries(both).numpy(), label, cv=folds).mean()) - 0.5


def predictive_score(train: Tensor, test: Tensor, seed: int = 0) -> float:
    """Mean absolute error of the next step of test windows, by a forest that is trained on other windows (N, T, D).

    Columns are divided by their standard deviation in `test`. Lower is better; that of real training data is ideal.

    Raises:
        ValueError: windows of one step.
    """
    from sklearn.ensemble import ExtraTreesRegressor

    if train.shape[1] < 2:
        raise ValueError("windows of one step: there is no next step.")
    scale = test.double().flatten(0, 1).std(0).clamp(min=1e-12)
    generator = torch.Generator().manual_seed(seed)
    (x, y), (x_test, y_test) = (lagged(part.double().cpu() / scale.cpu(), generator) for part in (train, test))
    forest = ExtraTreesRegressor(TREES, min_samples_leaf=5, random_state=seed).fit(x.numpy(), y.squeeze(1).numpy())
    guess = torch.as_tensor(forest.predict(x_test.numpy())).view_as(y_test)
    return float((guess - y_test).abs().mean())


def lagged(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Windows (N, T, D) -> at most `MAX_ROWS` rows of the last steps (M, L D), and the next step (M, D)."""
    lags = min(LAGS, x.shape[1] - 1)
    rows = x.unfold(1, lags + 1, 1).flatten(0, 1).transpose(1, 2)  # (M, L + 1, D)
    rows = rows[torch.randperm(len(rows), generator=generator)[:MAX_ROWS]]
    return rows[:, :-1].flatten(1), rows[:, -1]
