"""Phrase pairs of aligned sentences: symmetrised alignments, extraction, and the scored table."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
SCORES = ("p(target | source)", "p(source | target)", "lexical target | source", "lexical source | target")
ORIENTATIONS = ("monotone", "swap", "discontinuous")
PRIOR = 0.5  # weight, in counts, of the mean frequency of each orientation

Link = tuple[int, int]  # target position, source position


def symmetrize(one: set[Link], other: set[Link]) -> set[Link]:
    """Grow-diag-final-and of two directed alignments (Koehn, Och & Marcu 2003; Koehn et al. 2005, section 2).

    From the intersection, links of the union are added that neighbour a link and whose target or source word is free.
    Then links whose words are both free are added, those of `one` before those of `other`.
    """
    links, union = one & other, one | other
    targets, sources = {j for j, _ in links}, {i for _, i in links}

    def add(link: Link) -> None:
        links.add(link)
        targets.add(link[0])
        sources.add(link[1])

    grown = True
    while grown:
        grown = False
        for j, i in sorted(links):
            for down, right in NEIGHBOURS:
                new = (j + down, i + right)
                if new in union and new not in links and (new[0] not in targets or new[1] not in sources):
                    add(new)
                    grown = True
    for direction in (one, other):
        for link in sorted(direction):
            if link[0] not in targets and link[1] not in sources:
                add(link)
    return links


def extract_phrases(links: Tensor, sizes: Tensor, longest: int) -> Tensor:
    """Phrase pairs that are consistent with the alignments (Och & Ney 2004, equation 14).

    A pair of spans is consistent if it has a link, and no word of one span links to a word outside the other.

    Args:
        links: bool (B, T, S).
        sizes: number of target words (B,); later rows of `links` are padding.
        longest: maximum words of each span.

    Returns:
        int64 (N, 5): sentence, begin and end of the target span, begin and end of the source span; ends are exclusive.
    """
    steps, width = links.shape[1:]
    targets, sources = spans(steps, longest).to(links.device), spans(width, longest).to(links.device)
    counts = links.float()  # exact, as the sums are small integers
    rows, columns = inside(targets, steps), inside(sources, width)  # (P, T) and (Q, S)
    within = rows @ counts @ columns.T  # (B, P, Q): links within both spans
    consistent = (within > 0) & (within == rows @ counts.sum(2, keepdim=True))
    consistent &= within == (counts.sum(1) @ columns.T)[:, None]
    consistent &= (targets[:, 1] <= sizes[:, None])[..., None]
    sentence, p, q = consistent.nonzero(as_tuple=True)
    return torch.cat([sentence[:, None], targets[p], sources[q]], 1)


def spans(size: int, longest: int) -> Tensor:
    """All spans of 1 to `longest` of so many words: begin and exclusive end, (P, 2)."""
    return torch.tensor([(i, i + n) for i in range(size) for n in range(1, min(longest, size - i) + 1)]).view(-1, 2)


def inside(spans: Tensor, size: int) -> Tensor:
    """Indicators of the words in each span, 0 or 1: (P, size)."""
    word = torch.arange(size, device=spans.device)
    return ((word >= spans[:, :1]) & (word < spans[:, 1:])).float()


def orientations(links: Tensor, found: Tensor) -> Tensor:
    """Orientation of each phrase pair after the words before it: an index into `ORIENTATIONS` (Koehn et al. 2005).

    Monotone: the previous target word links to the previous source word. Swap: it links to the next source word. The
    begin of both sentences is a link.

    Args:
        links: bool (B, T, S).
        found: phrase pairs (N, 5) of `extract_phrases`.
    """
    around = F.pad(links, (1, 1, 1, 0))
    around[:, 0, 0] = True
    sentence, top, _, left, right = found.unbind(1)
    return torch.where(around[sentence, top, left], 0, torch.where(around[sentence, top, right + 1], 1, 2))


def lexical_scores(links: Tensor, x: Tensor, y: Tensor, vocabulary: int) -> Tensor:
    """Log of w(y_j | its linked source words) for each target word (B, T) (Koehn, Och & Marcu 2003, section 4.4).

    w(y | x) is the relative frequency of links; a word without links is linked to NULL. Several links are averaged.

    Args:
        links: int64 (N, 3): sentence, target and source position.
        x: source words (B, S).
        y: target words (B, T), negative for padding.
        vocabulary: number of words.
    """
    sentence, j, i = links.unbind(1)
    number = torch.zeros_like(y).index_put_((sentence, j), torch.ones_like(j), accumulate=True)
    free, target = ((number == 0) & (y >= 0)).nonzero(as_tuple=True)
    source = torch.cat([x[sentence, i], torch.full_like(free, vocabulary)])
    rows, columns = torch.cat([sentence, free]), torch.cat([j, target])
    _, index, count = torch.unique(source * vocabulary + y[rows, columns], return_inverse=True, return_counts=True)
    w = (count[index].double() / torch.bincount(source)[source]) / number[rows, columns].clamp(min=1)
    return torch.zeros(y.shape, dtype=w.dtype).index_put_((rows, columns), w, accumulate=True).log()


class PhraseIndex(nn.Module):
    """Numbers of word sequences, by a search tree: a node is the number of its parent and one more word.

    Args:
        vocabulary: number of words.
        longest: maximum words of a sequence.
    """

    def __init__(self, vocabulary: int, longest: int) -> None:
        super().__init__()
        self.vocabulary, self.longest = vocabulary, longest
        for depth in range(longest):
            self.register_buffer(f"keys_{depth}", torch.zeros(0, dtype=torch.int64))

    def keys(self, depth: int) -> Tensor:
        """Sorted keys of the sequences of depth + 1 words: number of the parent x vocabulary + word."""
        return getattr(self, f"keys_{depth}")

    @property
    def size(self) -> int:
        """Number of nodes."""
        return sum(len(self.keys(depth)) for depth in range(self.longest))

    def build(self, rows: Tensor) -> Tensor:
        """Insert sequences (N, longest), padded by negative numbers: the number of each (N,)."""
        for depth in range(self.longest):
            reaches = rows[:, depth] >= 0
            parent = self._descend(rows, depth)
            setattr(self, f"keys_{depth}", torch.unique((parent * self.vocabulary + rows[:, depth])[reaches]))
        return self(rows)

    def _descend(self, rows: Tensor, depth: int) -> Tensor:
        """Index, among the sequences of its length, of the first `depth` words of each row; -1 if it is missing."""
        node = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        for level in range(depth):
            keys, wanted = self.keys(level), node * self.vocabulary + rows[:, level]
            if not len(keys):
                return torch.full_like(node, -1)
            index = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            node = torch.where((node >= 0) & (rows[:, level] >= 0) & (keys[index] == wanted), index, -1)
        return node

    def forward(self, rows: Tensor) -> Tensor:
        """Number of each sequence (N, longest), -1 if it is missing: (N,)."""
        lengths, found, offset = (rows >= 0).sum(1), torch.full((len(rows),), -1, device=rows.device), 0
        for depth in range(1, self.longest + 1):
            node = self._descend(rows, depth)
            found = torch.where((lengths == depth) & (node >= 0), node + offset, found)
            offset += len(self.keys(depth - 1))
        return found


class PhraseTable(nn.Module):
    """Phrase pairs with the logarithms of `SCORES` and of the probabilities of `ORIENTATIONS`.

    Probabilities are relative frequencies with absolute discounting, interpolated with the number of different partners
    (Foster, Kuhn & Johnson 2006, section 3.1).

    Args:
        vocabulary: number of words.
        longest: maximum words of a phrase.
        options: most targets of one source; those of the highest scores are kept.
    """

    first: Tensor  # (nodes + 1,) int64: the pairs of source phrase n are first[n] to first[n + 1]
    targets: Tensor  # (N, longest) int32, padded by -1
    scores: Tensor  # (N, 4)
    orientation: Tensor  # (N, 3)

    def __init__(self, vocabulary: int, longest: int, options: int) -> None:
        super().__init__()
        self.longest, self.options = longest, options
        self.sources: Any = PhraseIndex(vocabulary, longest)
        self.register_buffer("first", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("targets", torch.zeros(0, longest, dtype=torch.int32))
        self.register_buffer("scores", torch.zeros(0, len(SCORES)))
        self.register_buffer("orientation", torch.zeros(0, len(ORIENTATIONS)))

    @torch.no_grad()
    def fit(self, sources: Tensor, targets: Tensor, lexical: Tensor, orientation: Tensor) -> None:
        """Count occurrences of phrase pairs.

        Args:
            sources: words (N, longest) of each occurrence, padded by negative numbers.
            targets: the same.
            lexical: log lexical weights in both directions (N, 2); a pair has the maximum of its occurrences.
            orientation: indices into `ORIENTATIONS` (N,).
        """
        source, other = self.sources.build(sources), PhraseIndex(self.sources.vocabulary, self.longest)
        target = other.build(targets)
        pair, index, count = torch.unique(source * other.size + target, return_inverse=True, return_counts=True)
        row = torch.zeros_like(pair).scatter_(0, index, torch.arange(len(index)))  # one occurrence of each
        worst = torch.full((len(pair), 2), -torch.inf, dtype=lexical.dtype)
        lexical = worst.scatter_reduce(0, index[:, None].expand(-1, 2), lexical, "amax")
        turns = torch.bincount(index * len(ORIENTATIONS) + orientation, minlength=len(pair) * len(ORIENTATIONS))
        turns = turns.view(-1, len(ORIENTATIONS)).double()
        mean = turns.sum(0) / turns.sum()
        f, e = pair // other.size, pair % other.size
        scores = torch.stack([discounted(count, f, e).log(), discounted(count, e, f).log(), *lexical.unbind(1)], 1)
        order = scores.sum(1).argsort(descending=True)
        order = order[f[order].argsort(stable=True)]
        first = F.pad(torch.bincount(f, minlength=self.sources.size).cumsum(0), (1, 0))
        order = order[torch.arange(len(order)) - first[f[order]] < self.options]
        self.first = F.pad(torch.bincount(f[order], minlength=self.sources.size).cumsum(0), (1, 0))
        self.targets, self.scores = targets[row[order]].int(), scores[order].float()
        self.orientation = ((turns + PRIOR * mean) / (turns.sum(1, keepdim=True) + PRIOR)).log()[order].float()


def discounted(count: Tensor, given: Tensor, of: Tensor) -> Tensor:
    """Smoothed p(of | given) of pairs with these counts, (N,)."""
    once, twice = (count == 1).sum().item(), (count == 2).sum().item()
    discount = once / (once + 2 * twice) if once else 0.0
    total = torch.zeros(int(given.max()) + 1, dtype=torch.int64).index_add_(0, given, count)[given]
    partners = torch.bincount(of)[of] / len(of)  # share of all pairs
    return (count - discount + discount * torch.bincount(given)[given] * partners) / total
