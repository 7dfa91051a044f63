"""Neighbours, analogies and human judgements of word vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F


def nearest(table: Tensor, queries: Tensor, k: int, exclude: Sequence[Sequence[int]] = ()) -> tuple[Tensor, Tensor]:
    """Rows of a table with the largest cosine similarity.

    Args:
        table: vectors (V, D).
        queries: vectors (N, D).
        k: rows for each query; fewer if the table is smaller.
        exclude: rows to leave out for each query.

    Returns:
        Cosines (N, k) in decreasing order, and rows (N, k).
    """
    cosines = F.normalize(queries, dim=1) @ F.normalize(table, dim=1).T  # (N, V)
    for row, left_out in enumerate(exclude):
        cosines[row, list(left_out)] = -torch.inf
    found = cosines.topk(min(k, len(table)), dim=1)
    return found.values, found.indices


def analogies(table: Tensor, questions: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Answers to "a is to b as c is to ?": the words nearest to b - a + c, without these three.

    The sum is of unit vectors (3CosAdd; Mikolov, Yih & Zweig 2013, NAACL).

    Args:
        table: vectors (V, D).
        questions: rows a, b and c, int64 (N, 3).
        k: answers for each.
    """
    unit = F.normalize(table, dim=1)
    a, b, c = (unit[questions[:, i]] for i in range(3))
    return nearest(unit, b - a + c, k, questions.tolist())


@dataclass(frozen=True)
class Judgement:
    """Agreement with people.

    Args:
        value: Spearman correlation of similarities, or share of right answers.
        error: standard error; of a correlation by 1,000 bootstrap samples.
        known: pairs or questions whose words all have vectors.
        total: pairs or questions.
    """

    value: float
    error: float
    known: int
    total: int


def word_similarity(table: Tensor, rows: Mapping[str, int], pairs: Sequence[tuple[str, str, float]]) -> Judgement:
    """Spearman correlation between cosines and similarities that people gave to pairs of words.

    Args:
        table: vectors (V, D).
        rows: row of each word.
        pairs: two words, and their similarity.
    """
    known = [(rows[a], rows[b], score) for a, b, score in pairs if a in rows and b in rows]
    if len(known) < 3:
        return Judgement(float("nan"), float("nan"), len(known), len(pairs))
    a, b = (torch.tensor([pair[i] for pair in known]) for i in range(2))
    cosines = F.cosine_similarity(table[a], table[b]).double().cpu().numpy()
    scores = np.array([score for *_, score in known])
    draws = np.random.default_rng(0).integers(len(known), size=(1000, len(known)))
    values = [spearmanr(cosines[i], scores[i])[0] for i in draws if len(set(scores[i])) > 1]
    return Judgement(float(spearmanr(cosines, scores)[0]), float(np.nanstd(values)), len(known), len(pairs))


def analogy_accuracy(table: Tensor, rows: Mapping[str, int], questions: Sequence[tuple[str, ...]]) -> Judgement:
    """Share of right answers to questions "a is to b as c is to d".

    Args:
        table: vectors (V, D).
        rows: row of each word.
        questions: four words each.
    """
    known = torch.tensor([[rows[w] for w in q] for q in questions if all(w in rows for w in q)]).view(-1, 4)
    if not len(known):
        return Judgement(float("nan"), float("nan"), 0, len(questions))
    right = torch.cat([analogies(table, some[:, :3])[1][:, 0].cpu() == some[:, 3] for some in known.split(256)])
    share = float(right.double().mean())
    return Judgement(share, (share * (1 - share) / len(known)) ** 0.5, len(known), len(questions))
