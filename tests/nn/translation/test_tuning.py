"""BLEU's statistics against sacrebleu, and weights that are known to be right."""

import pytest
import torch

from zoo.nn.translation.tuning import bleu_of, bleu_statistics, minimum_risk


def texts(n, seed):
    g = torch.Generator().manual_seed(seed)
    return [
        [f"w{int(w)}" for w in torch.randint(0, 6, (int(torch.randint(4, 12, (), generator=g)),), generator=g)]
        for _ in range(n)
    ]


def test_bleu_equals_sacrebleu():
    from sacrebleu.metrics import BLEU

    outputs, references = texts(60, 0), texts(60, 1)
    outputs = [[*o[:3], *r[3:]] for o, r in zip(outputs, references, strict=True)]
    found = torch.tensor([bleu_statistics(o, r) for o, r in zip(outputs, references, strict=True)]).sum(0).double()
    joined = [[" ".join(t) for t in side] for side in (outputs, references)]
    theirs = BLEU(tokenize="none", smooth_method="none").corpus_score(joined[0], [joined[1]]).score
    assert 100 * bleu_of(found).item() == pytest.approx(theirs, abs=1e-6)
    short = torch.tensor([bleu_statistics(r[:-1], r) for r in references]).sum(0).double()
    assert bleu_of(short) < 1, "the penalty of short outputs"


def test_minimum_risk_finds_the_feature_that_tells_good_translations():
    """Feature 0 is the share of right words, 1 its opposite plus noise, 2 noise alone."""
    g = torch.Generator().manual_seed(0)
    references, features, statistics = texts(40, 2), [], []
    for reference in references:
        row, numbers = [], []
        for k in range(8):
            right = [w if float(torch.rand((), generator=g)) < k / 7 else "x" for w in reference]
            quality = sum(w != "x" for w in right) / len(right)
            noise = torch.rand(2, generator=g).tolist()
            row.append([quality, -quality + noise[0], noise[1]])
            numbers.append(bleu_statistics(right, reference))
        features.append(row)
        statistics.append(numbers)
    features, statistics = torch.tensor(features), torch.tensor(statistics)

    def bleu_with(weights):
        best = (features.double() @ weights).argmax(1)
        return bleu_of(statistics[torch.arange(40), best].sum(0).double()).item()

    begin = torch.tensor([-1.0, 0.5, 0.0])
    found = minimum_risk(features, statistics, begin)
    assert found[0] > 0
    assert bleu_with(begin.double()) < 0.2 < 0.8 < bleu_with(found)
    kept = minimum_risk(features, statistics, begin, positive=(1,), steps=40)
    assert kept[1] >= 0
    assert found[1] < 0, "control: without the bound the weight changes its sign"
