"""Retrieval of the partner of a text by vectors of texts, beside TF-IDF."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.spaces import Pair
from zoo.data.base import DataModule
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.likelihood import standard_error
from zoo.metrics.alignment_uniformity import alignment, uniformity
from zoo.metrics.ranking import rank_of
from zoo.models.abilities import SupportsEmbedding, SupportsWordVectors
from zoo.models.ability import supports
from zoo.models.base import Model

MOST, BATCH = 1000, 64  # pairs, and texts that are embedded together
PASSAGE = 32  # words
SHORTEST = 8  # words of a passage
TRAINING_TEXTS = 60_000  # that the baseline counts words in
BASELINES = {"tfidf_words": {}, "tfidf_letters": {"analyzer": "char_wb", "ngram_range": (3, 5)}}


@register("suite", "sentences")
class SentenceSuite(Suite):
    """The second text of a pair, or the second half of a passage, is found by the first one."""

    order = 26

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that embed texts and not single words, on pairs of texts or running text."""
        able = supports(model, SupportsEmbedding) and not supports(model, SupportsWordVectors)
        return able and not data.prompted and (isinstance(data.spec.x, Pair) or hasattr(data, "iterate_texts"))

    def measure(self, context: EvaluationContext) -> Scores:
        """Recall@1 and mean reciprocal rank by cosine, of at most 1,000 pairs; alignment and uniformity of the vectors.

        "centred" subtracts the mean vector first. The baselines are TF-IDF of words, and of three to five letters,
        fitted to training texts. Candidates of equal score count as better than the right one.
        """
        data: Any = context.data
        pairs = partners(data, context.protocol.split)
        if len(pairs) < 2:
            return {}
        texts = [text for side in zip(*pairs, strict=True) for text in side]
        model: Any = context.model
        parts = [model.embed(texts[i : i + BATCH]).float().cpu() for i in range(0, len(texts), BATCH)]
        vectors = torch.cat(parts)  # (2 N, D)
        cosines = {"": similarities(vectors), "_centred": similarities(vectors - vectors.mean(0))}
        fitted = list(islice(training_texts(data), TRAINING_TEXTS))
        cosines |= {f"_{name}": tfidf_similarities(fitted, texts, options) for name, options in BASELINES.items()}
        scores: Scores = {}
        for name, table in cosines.items():
            rank = rank_of(table, torch.arange(len(table))).double()
            for metric, value in (("partner_recall1", (rank == 1).double()), ("partner_mrr", 1 / rank)):
                found = Metric(float(value.mean()), "higher", error=standard_error(value))
                scores[context.name(metric + name, len(table))] = found
        first, second = vectors.chunk(2)
        scores[context.name("alignment", len(first))] = Metric(float(alignment(first, second)), "lower")
        scores[context.name("uniformity", len(first))] = Metric(float(uniformity(vectors)), "lower")
        return scores


def partners(data: Any, split: str) -> list[tuple[str, str]]:
    """At most 1,000 pairs of a split, evenly spaced: those of the data, or the halves of passages of 32 words."""
    if isinstance(data.spec.x, Pair):
        found = list(data.pairs(split))
    else:
        found = [halves for text in data.iterate_texts(split) for halves in passages(text.split())]
    step = max(len(found) / MOST, 1)
    return [found[int(i * step)] for i in range(min(len(found), MOST))]


def passages(words: Sequence[str]) -> list[tuple[str, str]]:
    """Halves of adjacent passages of 32 words; a last one of fewer than 8 words is left out."""
    parts = [words[i : i + PASSAGE] for i in range(0, len(words), PASSAGE)]
    long = [part for part in parts if len(part) >= SHORTEST]
    return [(" ".join(part[: len(part) // 2]), " ".join(part[len(part) // 2 :])) for part in long]


def training_texts(data: Any) -> Iterable[str]:
    """Texts of the training split."""
    if isinstance(data.spec.x, Pair):
        return (text for pair in data.pairs("train") for text in pair)
    return (half for text in data.iterate_texts("train") for pair in passages(text.split()) for half in pair)


def similarities(vectors: Tensor) -> Tensor:
    """Cosines (N, N) of the first and the second half of vectors (2 N, D)."""
    first, second = F.normalize(vectors, dim=1).chunk(2)
    return first @ second.T


def tfidf_similarities(training: Sequence[str], texts: Sequence[str], options: dict[str, Any]) -> Tensor:
    """The same of TF-IDF vectors of texts (2 N); the weights are those of the training texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(**options).fit(training).transform(texts)
    half = len(texts) // 2
    return torch.from_numpy((vectors[:half] @ vectors[half:].T).toarray())
