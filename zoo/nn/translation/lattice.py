"""Partial translations of a search, and the best derivations among all that it kept."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.nn.translation.phrases import SCORES

FEATURES = ("language model", *SCORES, "orientation", "distance", "phrases", "words")
LM, ORIENTATION, DISTANCE = 0, 5, 6  # features that depend on the phrases before


@dataclass
class Options:
    """Phrases that may translate a part of a sentence, sorted by sentence and begin.

    Args:
        sentence: (O,).
        begin: first source word (O,).
        end: after the last source word (O,).
        words: target words, padded by -1 (O, L).
        features: those of the phrase alone (O, F); of the language model, words that have a whole context.
        bound: highest log-probability of the other words under the language model (O,).
        orientation: log-probabilities of orientations (O, 3).
    """

    sentence: Tensor
    begin: Tensor
    end: Tensor
    words: Tensor
    features: Tensor
    bound: Tensor
    orientation: Tensor

    def __getitem__(self, index: Tensor) -> "Options":
        return Options(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass
class Hypotheses:
    """Partial translations, and the last step of each.

    Args:
        sentence: (N,).
        covered: translated words, and padding, bool (N, S).
        last: begin and end of the last translated source phrase (N, 2).
        history: last target words (N, order - 1).
        score: of the phrases so far (N,).
        future: highest estimate of the rest (N,).
        parent: number of the hypothesis before the last step, -1 for none (N,).
        option: phrase of the last step (N,).
        step: features of the last step that depend on the others: language model, orientation, distance (N, 3).
    """

    sentence: Tensor
    covered: Tensor
    last: Tensor
    history: Tensor
    score: Tensor
    future: Tensor
    parent: Tensor
    option: Tensor
    step: Tensor

    def __getitem__(self, index: Tensor) -> "Hypotheses":
        return Hypotheses(*(getattr(self, f.name)[index] for f in fields(self)))

    @staticmethod
    def join(parts: Sequence["Hypotheses"]) -> "Hypotheses":
        """All rows of several."""
        return Hypotheses(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Hypotheses)))


@dataclass(frozen=True)
class Derivation:
    """A translation of one sentence.

    Args:
        words: of the target.
        score: weighted sum of the features.
        features: in the order of `FEATURES`.
    """

    words: tuple[int, ...]
    score: float
    features: tuple[float, ...]


class Lattice:
    """All derivations that a search kept.

    Args:
        options: phrases.
        steps: hypotheses with their last steps; several rows may lead to one hypothesis.
        node: number of the hypothesis of each row.
        size: number of sentences.
    """

    def __init__(self, options: Options, steps: Hypotheses, node: Tensor, size: int) -> None:
        order = steps.score.argsort(descending=True, stable=True)
        order = order[node[order].argsort(stable=True)]
        steps, node = steps[order], node[order]
        self.words, self.features = options.words.tolist(), options.features
        self.parent, self.option, self.score = steps.parent.tolist(), steps.option.tolist(), steps.score.tolist()
        self.step = steps.step
        self.first = F.pad(torch.bincount(node).cumsum(0), (1, 0)).tolist()
        self.finished = steps.covered.all(1).tolist()
        self.final: list[list[int]] = [[] for _ in range(size)]
        for row, sentence in enumerate(steps.sentence.tolist()):
            if self.finished[row]:
                self.final[sentence].append(row)

    def best(self, sentence: int, most: int = 1) -> list[Derivation]:
        """The derivations with the highest scores, best first, by best-first search from the end."""
        ticket = count()  # decides between equal scores
        heap: list[tuple[float, int, int, tuple[int, ...], float]]
        heap = [(-self.score[row], next(ticket), row, (row,), 0.0) for row in self.final[sentence]]
        heapq.heapify(heap)
        found: list[Derivation] = []
        while heap and len(found) < most:
            negative, _, row, path, rest = heapq.heappop(heap)
            parent = self.parent[row]
            if parent < 0:
                found.append(self.derivation(path[1:], -negative))
                continue
            rows = range(self.first[parent], self.first[parent + 1])
            rest += self.score[row] - self.score[rows[0]]  # of this step: scores begin with the parent's best
            for before in rows:
                total = self.score[before] + rest
                heapq.heappush(heap, (-total, next(ticket), before, (before, *path), rest))
        return found

    def derivation(self, path: Sequence[int], score: float) -> Derivation:
        """Words and features of a sequence of steps."""
        options = [self.option[row] for row in path]
        features = self.features[options].sum(0)
        features[[LM, ORIENTATION, DISTANCE]] += self.step[list(path)].sum(0)
        words = tuple(word for option in options for word in self.words[option] if word >= 0)
        return Derivation(words, score, tuple(features.tolist()))
