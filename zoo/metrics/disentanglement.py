"""Disentanglement of codes (N, D): each follows one of the known factors of variation, int64 (N, F)."""

import torch
from torch import Tensor

BINS = 20  # of equal width, from the least to the largest code
TREES = 20
FOREST_ROWS = 3_000  # that trees are grown on; others measure their accuracy
FOREST_DEPTH = 12


def mutual_information(codes: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Mutual information of each binned code with each factor (D, F), and entropies of the factors (F,), nats."""
    low, high = codes.double().min(0)[0], codes.double().max(0)[0]
    binned = ((codes.double() - low) / (high - low).clamp(min=1e-12) * BINS).long().clamp(max=BINS - 1)
    table = torch.zeros(codes.shape[1], factors.shape[1], dtype=torch.float64)
    entropies = torch.stack([_entropy(torch.bincount(f).double()) for f in factors.T])
    for d, code in enumerate(binned.T):
        for f, factor in enumerate(factors.T):
            joint = torch.bincount(code * (int(factor.max()) + 1) + factor, minlength=1).double()
            table[d, f] = _entropy(torch.bincount(code).double()) + entropies[f] - _entropy(joint)
    return table, entropies


def mutual_information_gap(codes: Tensor, factors: Tensor) -> Tensor:
    """Gap of each factor (F,): of the two codes with the largest mutual information, as a share of the entropy.

    Chen et al. 2018, 1802.04942, equation 6, with codes in 20 bins (Locatello et al. 2019, 1811.12359). Their mean is
    MIG: 1 where each factor is found in one code alone, 0 where two codes share it.
    """
    table, entropies = mutual_information(codes, factors)
    table = torch.cat([table, torch.zeros(1, factors.shape[1], dtype=table.dtype)])  # for a single code
    best = table.topk(2, dim=0)[0]  # (2, F)
    return (best[0] - best[1]) / entropies


def disentanglement_completeness_informativeness(codes: Tensor, factors: Tensor, seed: int = 0) -> dict[str, float]:
    """Return `disentanglement`, `completeness` and `informativeness` (Eastwood & Williams 2018, ICLR; DCI).

    A random forest predicts each factor from the codes. The importance of code d for factor f is R. Disentanglement is
    1 minus the entropy of a code's importances over factors, weighted by the importance of the code. Completeness is
    the same of a factor over codes. Informativeness is the accuracy on held-out rows, relative to that of a guess.
    """
    from sklearn.ensemble import RandomForestClassifier

    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))
    n = min(FOREST_ROWS, len(codes) * 3 // 4)
    train, held = order[:n], order[n:]
    importance, skill = [], []
    for factor in factors.T:
        forest = RandomForestClassifier(TREES, max_depth=FOREST_DEPTH, max_features=None, random_state=seed)
        forest.fit(codes[train].numpy(), factor[train].numpy())
        importance.append(torch.from_numpy(forest.feature_importances_))
        right = float(forest.score(codes[held].numpy(), factor[held].numpy()))
        guess = float(torch.bincount(factor[held]).max()) / len(held)
        skill.append((right - guess) / (1 - guess))
    table = torch.stack(importance, 1)  # (D, F)
    return {
        "disentanglement": _concentration(table),
        "completeness": _concentration(table.T),
        "informativeness": sum(skill) / len(skill),
    }


def separated_attribute_predictability(codes: Tensor, factors: Tensor) -> Tensor:
    """Gap of each factor (F,) between the two codes that predict it best on their own, by a linear regression.

    Kumar et al. 2017, 1711.00848, section 4: SAP is the mean. The score of a code is the squared correlation with the
    factor as a number, also for factors without an order.
    """
    both = torch.cat([codes, factors], 1).double().T
    centred = both - both.mean(1, keepdim=True)
    scaled = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)
    squares = (scaled[: codes.shape[1]] @ scaled[codes.shape[1] :].T).square()  # (D, F)
    best = torch.cat([squares, torch.zeros_like(squares[:1])]).topk(2, dim=0)[0]
    return best[0] - best[1]


def _entropy(counts: Tensor) -> Tensor:
    return torch.special.entr(counts / counts.sum()).sum()


def _concentration(table: Tensor) -> float:
    """1 - entropy of each row relative to that of equal shares, weighted by the row's sum."""
    if table.shape[1] < 2 or not bool(table.sum() > 0):
        return 1.0 if table.shape[1] < 2 else 0.0
    rows = table.sum(1)
    shares = table / rows[:, None].clamp(min=1e-12)
    entropy = torch.special.entr(shares).sum(1) / torch.tensor(float(table.shape[1])).log()
    return float(((1 - entropy) * rows).sum() / rows.sum())
