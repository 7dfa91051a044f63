"""Word-based translation models: a table t(target word | source word) with a model of alignments, fitted by EM."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.spaces import ABSENT
from zoo.nn.translation.alignment import AbsoluteAlignment, JumpAlignment, UniformAlignment
from zoo.nn.translation.links import Links

AlignmentKind = Literal["ibm1", "ibm2", "hmm"]
UNSEEN = 1e-3  # share of each t(. | x) that is spread evenly over the vocabulary
ALIGNMENTS = {"ibm1": UniformAlignment, "ibm2": AbsoluteAlignment}


class WordAligner(nn.Module):
    """p(y | x) of target words given source words, by a table t(y | x) and a model of alignments.

    All is uniform until fitted. Afterwards `UNSEEN` of each t(. | x) is spread evenly, except in `fit`.

    Args:
        vocabulary: number of words; sources may have one more, NULL.
        kind: of the alignments.
        null: probability of NULL in the hidden Markov model.
    """

    keys: Tensor  # (N,) int64, sorted: source word x vocabulary + target word
    probs: Tensor  # (N,) float64: t
    seen: Tensor  # (V + 1,) bool: source words of the training data

    def __init__(self, vocabulary: int, kind: AlignmentKind = "hmm", null: float = 0.2) -> None:
        super().__init__()
        self.vocabulary, self.kind = vocabulary, kind
        self.register_buffer("keys", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("probs", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(vocabulary + 1, dtype=torch.bool))
        self.alignment: Any = JumpAlignment(null) if kind == "hmm" else ALIGNMENTS[kind]()

    def with_null(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """NULL and the source words (B, 1 + S), and the lengths (B,) of sources (B, S) that are padded by `ABSENT`."""
        return F.pad(x, (1, 0), value=self.vocabulary), (x != ABSENT).sum(1)

    def unseen(self, x: Tensor) -> Tensor:
        """Share of t(. | x) that is spread evenly: all of it for source words without data."""
        return torch.where(self.seen[x], self.probs.new_tensor(UNSEEN), self.probs.new_tensor(1.0))

    def translation(self, x: Tensor, y: Tensor) -> Tensor:
        """t(y | x) of source and target words of one shape, smoothed."""
        if not len(self.keys):
            return torch.full(y.shape, 1 / self.vocabulary, dtype=torch.float64, device=y.device)
        wanted = x.clamp(min=0) * self.vocabulary + y.clamp(min=0)
        index = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
        t = torch.where(self.keys[index] == wanted, self.probs[index], 0.0)
        unseen = self.unseen(x.clamp(min=0))
        return (1 - unseen) * t + unseen / self.vocabulary

    def row(self, x: Tensor) -> Tensor:
        """t(. | x) of source words (N,): (N, V)."""
        p = torch.zeros(len(x), self.vocabulary, dtype=torch.float64, device=x.device)
        first, last = (torch.searchsorted(self.keys, (x + i) * self.vocabulary) for i in (0, 1))
        number = last - first
        row = torch.arange(len(x), device=x.device).repeat_interleave(number)
        index = torch.arange(len(row), device=x.device) + (first - number.cumsum(0) + number)[row]
        p[row, self.keys[index] % self.vocabulary] = self.probs[index]
        unseen = self.unseen(x)[:, None]
        return (1 - unseen) * p + unseen / self.vocabulary

    def emissions(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """t (B, T, 1 + S) of targets (B, T) given NULL and sources (B, S); and the lengths of the sources."""
        words, lengths = self.with_null(x)
        shape = (len(y), y.shape[1], words.shape[1])
        return self.translation(words[:, None].expand(shape), y[:, :, None].expand(shape)), lengths

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Log-probability of each target word (B, T) given the source (B, S) and the words before; 0 for padding."""
        emitted, lengths = self.emissions(x, y)
        state, nats = self.alignment.start(lengths), []
        for j in range(y.shape[1]):
            nats.append((self.alignment.predict(state, x.shape[1]) * emitted[:, j]).sum(1).log())
            self.alignment.observe(state, emitted[:, j])
        return torch.stack(nats, 1).masked_fill(y < 0, 0.0)

    @torch.no_grad()
    def links(self, x: Tensor, y: Tensor) -> list[set[tuple[int, int]]]:
        """Most likely alignment of each pair: (target position, source position), without NULL and the end tokens."""
        found: list[set[tuple[int, int]]] = [set() for _ in range(len(x))]
        sizes = (y != ABSENT).sum(1).tolist()
        for rows, s, t in by_lengths(x, y):
            paths = self.alignment.best(*self.emissions(x[rows, :s], y[rows, :t]))
            for n, path in zip(rows.tolist(), paths.tolist(), strict=True):
                found[n] = {(j, i - 1) for j, i in enumerate(path[: sizes[n] - 1]) if 0 < i < s}
        return found

    # -- fitting

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor, iterations: int) -> list[float]:
        """EM on sources (N, S) and targets (N, T), padded by `ABSENT`: the log-likelihood before each M-step, in nats.

        IBM model 1 runs first, and gives the others their first table.
        """
        groups, indices = by_lengths(x, y), []
        for rows, s, t in groups:
            words, targets = self.with_null(x[rows, :s])[0], y[rows, :t]
            targets = torch.where(targets < 0, targets[:, :1], targets)  # padding does not count
            indices.append(words[:, None] * self.vocabulary + targets[..., None])  # (B, T, 1 + S)
        widths = torch.tensor([k.shape[2] for k in indices]).repeat_interleave(
            torch.tensor([k.shape[0] * k.shape[1] for k in indices])
        )
        links = Links(torch.cat([keys.flatten() for keys in indices]), widths)
        real = torch.cat([(y[rows, :t] >= 0).flatten() for rows, _, t in groups])
        self.keys = links.keys
        self.seen[self.keys // self.vocabulary] = True
        self.probs = torch.full(self.keys.shape, 1 / self.vocabulary, dtype=torch.float64)
        history: list[float] = []
        for _ in range(iterations):
            counts, total = links.expected_counts(self.probs, real)
            history.append(total)
            self.probs = self.normalized(counts)
        if self.kind == "ibm1":
            return history
        flat = links.index.split([k.numel() for k in indices])
        indices = [p.view_as(k) for p, k in zip(flat, indices, strict=True)]
        for _ in range(iterations):
            counts, total, statistics = torch.zeros_like(self.probs), 0.0, []
            for index, (rows, s, t) in zip(indices, groups, strict=True):
                lengths = torch.full((len(rows),), s)
                found, nats, some = self.alignment.posterior(self.probs[index], lengths, y[rows, :t] >= 0)
                counts.index_add_(0, index.flatten(), found.flatten())
                total += float(nats.sum())
                statistics.append(some)
            history.append(total)
            self.alignment.maximise(statistics)
            self.probs = self.normalized(counts)
        return history

    def normalized(self, counts: Tensor) -> Tensor:
        """Table t from expected counts (N,). A target word whose links all vanish keeps a trace: it stays possible."""
        counts, sizes = counts.clamp(min=1e-300), torch.bincount(self.keys // self.vocabulary)
        sizes = sizes[sizes > 0]  # entries of each source word, which are adjacent
        totals = torch.segment_reduce(counts, "sum", lengths=sizes)
        return counts / totals.repeat_interleave(sizes)

    # -- IncrementalDecoder of the target, given a source

    def after(self, x: Tensor) -> "TargetWriter":
        """Decoder of the targets of sources (B, S)."""
        return TargetWriter(self, x)


class TargetWriter:
    """`IncrementalDecoder` of targets that a `WordAligner` writes for sources (B, S)."""

    context = float("inf")

    def __init__(self, aligner: WordAligner, x: Tensor) -> None:
        self.aligner, self.x = aligner, x
        words, self.lengths = aligner.with_null(x)
        present = torch.arange(words.shape[1], device=x.device) <= self.lengths[:, None]
        rows = aligner.row(words.clamp(min=0).flatten()).view(*words.shape, -1)
        self.rows = rows * present[..., None]  # (B, 1 + S, V)

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Read the begin token of each target (B, 1) and the targets so far: next logits (B, V), and a state."""
        state = self.aligner.alignment.start(self.lengths)
        state["row"] = torch.arange(len(tokens), device=tokens.device)
        for token in tokens[:, 1:].unbind(1):
            self.step(token, state)
        return self.logits(state), state

    def logits(self, state: dict[str, Tensor]) -> Tensor:
        """Log-probabilities (B, V) of the next word."""
        prior = self.aligner.alignment.predict(state, self.x.shape[1])
        return torch.einsum("bs,bsv->bv", prior, self.rows[state["row"]]).log()

    def step(self, tokens: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Append one word per row (B,): next logits (B, V)."""
        index = tokens.view(-1, 1, 1).expand(-1, self.rows.shape[1], 1)
        self.aligner.alignment.observe(state, self.rows[state["row"]].gather(2, index)[..., 0])
        return self.logits(state)

    def reorder(self, state: dict[str, Tensor], rows: Tensor) -> None:
        """Replace row b of the state by row `rows[b]`."""
        state.update({name: values[rows] for name, values in state.items()})


def by_lengths(x: Tensor, y: Tensor, most: int = 512) -> list[tuple[Tensor, int, int]]:
    """Groups of at most so many pairs with sources of one length: rows (B,), source length, longest target."""
    sources, targets = (x != ABSENT).sum(1), (y != ABSENT).sum(1)
    order = (sources * (y.shape[1] + 1) + targets).argsort(stable=True)
    parts = order.split(torch.bincount(sources).tolist())
    return [
        (rows, int(sources[rows[0]]), int(targets[rows].max()))
        for part in parts if len(part) for rows in part.split(most)
    ]  # fmt: skip
