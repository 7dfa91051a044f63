"""N-gram language model with interpolated Kneser-Ney smoothing."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.kernels.cpu_ngram import MAX_ROWS, next_probabilities


class NGramTable(nn.Module):
    """N-grams of one length, keyed by the index of their context in the next shorter table and their last token."""

    keys: Tensor  # (N,) int64, sorted: index of the context x vocabulary + last token
    counts: Tensor  # (N,) int32
    totals: Tensor  # (contexts,) int64: sum of the counts
    kinds: Tensor  # (contexts, 3) int32: number of n-grams with counts 1, 2, and 3 or more
    discounts: Tensor  # (4,), for counts of 0 (none), 1, 2, and 3 or more

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("totals", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("kinds", torch.zeros(0, 3, dtype=torch.int32))
        self.register_buffer("discounts", torch.zeros(4))

    def set_counts(self, keys: Tensor, counts: Tensor, contexts: int, vocabulary: int) -> None:
        """Set the n-grams and their counts."""
        context, device = keys // vocabulary, self.keys.device
        kinds = torch.bincount(context * 3 + counts.clamp(max=3) - 1, minlength=3 * contexts).view(contexts, 3).int()
        totals = torch.zeros(contexts, dtype=torch.int64, device=keys.device).index_add_(0, context, counts)
        self.keys, self.counts, self.totals, self.kinds = (t.to(device) for t in (keys, counts.int(), totals, kinds))
        self.discounts.copy_(discounts(counts))

    def lookup(self, keys: Tensor, valid: Tensor) -> Tensor:
        """Index of each key, or -1 if it is missing or not `valid`."""
        index = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return torch.where(valid & (self.keys[index] == keys), index, -1)

    def discounted(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Count minus discount of n-grams by index; zero for -1."""
        count = torch.where(index >= 0, self.counts[index.clamp(min=0)], 0)
        return count.to(dtype) - self.discounts.to(dtype)[count.clamp(max=3)]

    def backoff(self, context: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Total count of each context, and its mass for the shorter context; 1 and 1 for unseen contexts."""
        total = self.totals[context.clamp(min=0)]
        freed_mass = self.kinds[context.clamp(min=0)].to(dtype) @ self.discounts[1:].to(dtype)
        known = (context >= 0) & (total > 0)
        return torch.where(known, total, 1).to(dtype), torch.where(known, freed_mass, 1.0)


def discounts(counts: Tensor) -> Tensor:
    """Discounts (4,) from the numbers of n-grams with counts 1 to 4 (equation 26); a single one if any is zero."""
    n1, n2, n3, n4 = torch.bincount(counts.clamp(max=5), minlength=6)[1:5].double().tolist()
    y = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
    each = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3] if n1 and n2 and n3 and n4 else [y] * 3
    least = 0.01  # above zero, so that unseen n-grams stay possible
    return torch.tensor([0.0, *(min(max(d, least), i - least) for i, d in enumerate(each, 1))])


def use_cpu_kernel(history: Tensor) -> bool:
    """Whether numpy is faster: on CPUs, for a few histories (B, T)."""
    return history.device.type == "cpu" and 0 < len(history) <= MAX_ROWS and not torch.compiler.is_compiling()


class KneserNey(nn.Module):
    """Interpolated Kneser-Ney smoothing with three discounts (Chen & Goodman 1999, equations 17 and 21 to 26).

    With h' the context h without its first token, for every length of context

        p(w | h) = (c(hw) - D(c(hw))) / c(h.) + (sum over w of D(c(hw))) / c(h.) p(w | h')

    D is one of three discounts, for counts of 1, 2, and 3 or more. For unseen h, p(w | h) = p(w | h'). The empty
    context interpolates with the uniform distribution. For the longest n-grams c counts occurrences. For shorter ones
    it counts distinct preceding tokens, except after `end`, where earlier tokens do not matter. The distribution is
    uniform until fitted. Counts are integers, so they are exact at every precision.

    Args:
        vocabulary: number of tokens.
        order: length of the longest n-grams, including the predicted token.
        context: maximum tokens of an `IncrementalDecoder` state; only the last order - 1 matter.
        end: the token before and after a text.
    """

    tables: Any  # nn.ModuleList of NGramTable, for lengths from 1 to order

    def __init__(self, vocabulary: int, order: int, context: int, end: int) -> None:
        super().__init__()
        self.vocabulary, self.order, self.context, self.separator = vocabulary, order, context, end
        self.tables = nn.ModuleList(NGramTable() for _ in range(order))

    # -- fitting

    @torch.no_grad()
    def fit(self, tokens: Tensor, starts: Tensor) -> None:
        """Count the n-grams of a token stream.

        Args:
            tokens: int64 (N,).
            starts: bool (N,), True where a new segment starts; n-grams do not cross segments.
        """
        index = torch.arange(len(tokens), device=tokens.device)
        depth = index - torch.where(starts, index, 0).cummax(0).values  # number of known earlier tokens
        node = torch.zeros_like(tokens)  # index of the n-gram that ends at each token
        keys, raw, nodes = [], [], []
        for k in range(1, self.order + 1):
            complete = depth >= k - 1
            before = F.pad(node[:-1], (1, 0))
            found, indices, number = torch.unique(
                (before * self.vocabulary + tokens)[complete], return_inverse=True, return_counts=True
            )
            node = torch.full_like(tokens, -1).masked_scatter(complete, indices)
            keys.append(found)
            raw.append(number)
            nodes.append(node)
        contexts = 1
        for k, (table, found, counts) in enumerate(zip(self.tables, keys, raw, strict=True), 1):
            if k < self.order:
                longer = nodes[k] >= 0
                suffix = torch.zeros_like(keys[k]).scatter_(0, nodes[k][longer], nodes[k - 1][longer])
                distinct = torch.bincount(suffix, minlength=len(found)).clamp(min=1)
                ends = nodes[k - 1] >= 0
                first = torch.zeros_like(found).scatter_(0, nodes[k - 1][ends], tokens[index[ends] - (k - 1)])
                counts = torch.where(first == self.separator, counts, distinct)
            table.set_counts(found, counts, contexts, self.vocabulary)
            contexts = len(found)

    # -- prediction

    @property
    def fitted_tables(self) -> list[NGramTable]:
        """Fitted tables; empty before `fit`."""
        return [table for table in self.tables if len(table.keys)]

    @property
    def dtype(self) -> torch.dtype:
        """Type of probabilities: float64 if the device supports it."""
        return torch.float32 if self.tables[0].keys.device.type == "mps" else torch.float64

    def context_indices(self, tokens: Tensor) -> list[Tensor]:
        """Context indices for each position of tokens (B, T), where -1 is padding: one (B, T) tensor per context length
        from 0.

        The index is -1 for contexts that are unseen or incomplete.
        """
        found = [torch.zeros_like(tokens)]
        for k, table in enumerate(self.fitted_tables[: self.order - 1], 1):
            before = found[-1] if k == 1 else F.pad(found[-1][:, :-1], (1, 0), value=-1)
            found.append(table.lookup(before * self.vocabulary + tokens, (before >= 0) & (tokens >= 0)))
        return found

    def log_prob(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Log-probability of each target (B, T) after the tokens up to its position (B, T), nats (B, T)."""
        p = torch.full(targets.shape, 1 / self.vocabulary, dtype=self.dtype, device=targets.device)
        for table, context in zip(self.fitted_tables, self.context_indices(tokens), strict=False):
            total, backoff = table.backoff(context, self.dtype)
            index = table.lookup(context * self.vocabulary + targets, (context >= 0) & (targets >= 0))
            p = (table.discounted(index, self.dtype) + backoff * p) / total
        return p.log()

    def logits(self, history: Tensor) -> Tensor:
        """Log-probabilities of all tokens after histories (B, T), where -1 is padding: (B, vocabulary)."""
        if use_cpu_kernel(history):
            rows = [next_probabilities(self.fitted_tables, row, self.vocabulary) for row in history.tolist()]
            return torch.from_numpy(np.stack(rows)).log()
        return self.reference_logits(history)

    def reference_logits(self, history: Tensor) -> Tensor:
        """`logits` by tensor operations, for any device and number of rows."""
        p = torch.full((len(history), self.vocabulary), 1 / self.vocabulary, dtype=self.dtype, device=history.device)
        for table, contexts in zip(self.fitted_tables, self.context_indices(history), strict=False):
            context = contexts[:, -1]
            total, backoff = table.backoff(context, self.dtype)
            p *= backoff[:, None]
            first, last = (torch.searchsorted(table.keys, (context + i) * self.vocabulary) for i in (0, 1))
            number = torch.where(context >= 0, last - first, 0)  # the n-grams of a context are contiguous
            row = torch.arange(len(history), device=history.device).repeat_interleave(number)
            index = torch.arange(len(row), device=history.device) + (first - number.cumsum(0) + number)[row]
            p[row, table.keys[index] % self.vocabulary] += table.discounted(index, self.dtype)
            p /= total[:, None]
        return p.log()

    def forward(self, tokens: Tensor) -> Tensor:
        """Log-probabilities of all tokens after each position (B, T): (B, T, vocabulary)."""
        ends = range(1, tokens.shape[1] + 1)
        seen = max(self.order - 1, 1)
        return torch.stack([self.logits(tokens[:, max(end - seen, 0) : end]) for end in ends], dim=1)

    def log_bound(self, tokens: Tensor) -> Tensor:
        """Highest log-probability (B, T) of each token after those before it in its row, whatever precedes the row.

        Earlier tokens that are seen with the n-gram are searched. Others give at most the p of the n-gram itself.
        """
        tables, tokens = self.fitted_tables, tokens.clamp(min=0)
        grams, p = [torch.zeros(1, 0, dtype=torch.int64)], [torch.full((1,), 1 / self.vocabulary, dtype=self.dtype)]
        suffixes: list[Tensor] = []  # of each n-gram: its index without the first token
        for k, table in enumerate(tables):
            context, last = table.keys // self.vocabulary, table.keys % self.vocabulary
            grams.append(torch.cat([grams[-1].to(last.device)[context], last[:, None]], 1))
            suffix = torch.zeros_like(last)
            for shorter, column in zip(tables[:k], grams[-1][:, 1:].unbind(1), strict=True):
                suffix = shorter.lookup(suffix * self.vocabulary + column, suffix >= 0)
            suffixes.append(suffix)
            total, backoff = table.backoff(context, self.dtype)
            index = torch.arange(len(last), device=last.device)
            p.append((table.discounted(index, self.dtype) + backoff * p[-1].to(last.device)[suffix]) / total)
        for k in range(len(tables), 1, -1):
            p[k - 1].scatter_reduce_(0, suffixes[k - 1], p[k], "amax")
        bound = self.log_prob(F.pad(tokens[:, :-1], (1, 0), value=-1), tokens)
        node = torch.zeros_like(tokens[:, 0])
        for k, table in enumerate(tables[: tokens.shape[1]]):
            node = table.lookup(node * self.vocabulary + tokens[:, k], node >= 0)
            bound[:, k] = torch.where(node >= 0, p[k + 1][node.clamp(min=0)].log(), bound[:, k])
        return bound

    # -- IncrementalDecoder

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Process prompts (B, T), whose first `padding` (B,) tokens are padding: next logits (B, vocabulary), and a
        state.
        """
        if padding is not None:
            index = torch.arange(tokens.shape[1], device=tokens.device)
            tokens = tokens.masked_fill(index < padding[:, None], -1)
        state = {"last": tokens[:, -max(self.order - 1, 1) :]}
        return self.logits(state["last"]), state

    def step(self, tokens: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Append one token per row (B,): next logits (B, vocabulary)."""
        state["last"] = torch.cat([state["last"], tokens[:, None]], 1)[:, -max(self.order - 1, 1) :]
        return self.logits(state["last"])

    def new_cache(self, batch: int) -> dict[str, Tensor]:
        """State without tokens, for `extend`."""
        return {"last": torch.zeros(batch, 0, dtype=torch.int64, device=self.tables[0].keys.device)}

    def extend(self, tokens: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Append tokens (B, T) to the state, which keeps them all: logits after each (B, T, vocabulary)."""
        state["last"] = torch.cat([state["last"], tokens], 1)
        seen = max(self.order - 1, 1)
        if tokens.shape[1] == 1:
            return self.logits(state["last"][:, -seen:])[:, None]
        recent = state["last"][:, -(seen - 1 + tokens.shape[1]) :]
        padded = F.pad(recent, (seen - 1 + tokens.shape[1] - recent.shape[1], 0), value=-1)
        histories = padded.unfold(1, seen, 1)  # (B, T, order - 1)
        return self.logits(histories.flatten(0, 1)).unflatten(0, tokens.shape)

    def rewind(self, state: dict[str, Tensor], n: int) -> None:
        """Remove the last n tokens of every row, which `extend` appended."""
        state["last"] = state["last"][:, : state["last"].shape[1] - n]

    def reorder(self, state: dict[str, Tensor], rows: Tensor) -> None:
        """Replace row b of the state by row `rows[b]`."""
        state["last"] = state["last"][rows]

    def merge(self, state: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
        """State of the rows of both."""
        width = max(s["last"].shape[1] for s in (state, other))
        rows = [F.pad(s["last"], (width - s["last"].shape[1], 0), value=-1) for s in (state, other)]
        return {"last": torch.cat(rows)}
