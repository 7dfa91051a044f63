"""Which token follows the last few ones: counts of n-grams, smoothed."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Table(nn.Module):
    """The n-grams of one length, by the place of their first tokens in the table before and their last token."""

    keys: Tensor  # (N,) int64, sorted: place of the context x vocabulary + last token
    counts: Tensor  # (N,) int32
    totals: Tensor  # (contexts,) int64: sum of the counts
    kinds: Tensor  # (contexts, 3) int32: how many n-grams counted 1, 2, and 3 or more
    discounts: Tensor  # (4,), for counts of 0 (none), 1, 2, and 3 or more

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("totals", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("kinds", torch.zeros(0, 3, dtype=torch.int32))
        self.register_buffer("discounts", torch.zeros(4))

    def take(self, keys: Tensor, counts: Tensor, contexts: int, vocabulary: int) -> None:
        """Hold n-grams and how often they count, after so many contexts."""
        context, device = keys // vocabulary, self.keys.device
        kinds = torch.bincount(context * 3 + counts.clamp(max=3) - 1, minlength=3 * contexts).view(contexts, 3).int()
        totals = torch.zeros(contexts, dtype=torch.int64, device=keys.device).index_add_(0, context, counts)
        self.keys, self.counts, self.totals, self.kinds = (t.to(device) for t in (keys, counts.int(), totals, kinds))
        self.discounts.copy_(discounts(counts))

    def find(self, keys: Tensor, real: Tensor) -> Tensor:
        """Places of keys, -1 for those that are not there or not real."""
        place = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return torch.where(real & (self.keys[place] == keys), place, -1)

    def counted(self, place: Tensor, dtype: torch.dtype) -> Tensor:
        """Count less discount of n-grams by their places; zero for -1."""
        count = torch.where(place >= 0, self.counts[place.clamp(min=0)], 0)
        return count.to(dtype) - self.discounts.to(dtype)[count.clamp(max=3)]

    def left(self, context: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Total of contexts, and how much of it the discounts free; one of one for contexts that were never seen."""
        total = self.totals[context.clamp(min=0)]
        freed = self.kinds[context.clamp(min=0)].to(dtype) @ self.discounts[1:].to(dtype)
        known = (context >= 0) & (total > 0)
        return torch.where(known, total, 1).to(dtype), torch.where(known, freed, 1.0)


def discounts(counts: Tensor) -> Tensor:
    """(4,), by the numbers of n-grams that were counted once to four times; one for all where some are zero."""
    n1, n2, n3, n4 = torch.bincount(counts.clamp(max=5), minlength=6)[1:5].double().tolist()
    y = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
    each = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3] if n1 and n2 and n3 and n4 else [y] * 3
    least = 0.01  # above zero, or what was never seen would be impossible
    return torch.tensor([0.0, *(min(max(d, least), i - least) for i, d in enumerate(each, 1))])


class KneserNey(nn.Module):
    """Interpolated Kneser-Ney smoothing with three discounts (Chen & Goodman 1999, equations 17 and 21 to 26).

    With h' the context h without its first token, for every length of context

        p(w | h) = (c(hw) - D(c(hw))) / c(h.) + (sum over w of D(c(hw))) / c(h.) p(w | h'),

    where D is one of three numbers for counts of one, two and more, p(w | h) = p(w | h') where h was never seen, and
    the shortest context interpolates with equal probabilities. c counts occurrences for the longest n-grams; for
    shorter ones it counts the different tokens before them, except after `end`, where nothing matters that came before.
    Before it is fitted, every token is as likely.

    Counts are integers, so that no precision of the numbers around them loses any.

    Args:
        vocabulary: tokens.
        order: length of the longest n-grams, the predicted token included.
        context: most tokens that a state of `zoo.nn.samplers.autoregressive.IncrementalDecoder` takes; only the last order - 1 matter.
        end: the token before and after a text.
    """

    tables: Any  # nn.ModuleList of Table, for lengths from 1 to order

    def __init__(self, vocabulary: int, order: int, context: int, end: int) -> None:
        super().__init__()
        self.vocabulary, self.order, self.context, self.end = vocabulary, order, context, end
        self.tables = nn.ModuleList(Table() for _ in range(order))

    # -- counting --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def fit(self, tokens: Tensor, starts: Tensor) -> None:
        """Count the n-grams of a stream, where none reaches across a start.

        Args:
            tokens: int64 (N,).
            starts: bool (N,), True where what came before is not known; at the first token it is.
        """
        place = torch.arange(len(tokens), device=tokens.device)
        depth = place - torch.where(starts, place, 0).cummax(0).values  # tokens known before each one
        node = torch.zeros_like(tokens)  # of the n-gram that ends at each token: its place among those of its length
        keys, raw, nodes = [], [], []
        for k in range(1, self.order + 1):
            whole = depth >= k - 1  # the n-grams that lie within the stream
            before = F.pad(node[:-1], (1, 0))
            found, places, number = torch.unique(
                (before * self.vocabulary + tokens)[whole], return_inverse=True, return_counts=True
            )
            node = torch.full_like(tokens, -1).masked_scatter(whole, places)
            keys.append(found)
            raw.append(number)
            nodes.append(node)
        contexts = 1
        for k, (table, found, counts) in enumerate(zip(self.tables, keys, raw, strict=True), 1):
            if k < self.order:
                longer = nodes[k] >= 0
                suffix = torch.zeros_like(keys[k]).scatter_(0, nodes[k][longer], nodes[k - 1][longer])
                different = torch.bincount(suffix, minlength=len(found)).clamp(min=1)
                ends = nodes[k - 1] >= 0
                first = torch.zeros_like(found).scatter_(0, nodes[k - 1][ends], tokens[place[ends] - (k - 1)])
                counts = torch.where(first == self.end, counts, different)
            table.take(found, counts, contexts, self.vocabulary)
            contexts = len(found)

    # -- predicting ------------------------------------------------------------------------------------------

    @property
    def used(self) -> list[Table]:
        """Tables that hold anything; none before `fit`."""
        return [table for table in self.tables if len(table.keys)]

    @property
    def dtype(self) -> torch.dtype:
        """Of probabilities: double precision, where the device has it."""
        return torch.float32 if self.tables[0].keys.device.type == "mps" else torch.float64

    def contexts(self, tokens: Tensor) -> list[Tensor]:
        """The contexts that end at each of the tokens (B, T), where -1 is none: for every length from 0 on their
        places in the table of that length (B, T), or -1 where they were never seen or begin before the tokens.
        """
        found = [torch.zeros_like(tokens)]
        for k, table in enumerate(self.used[: self.order - 1], 1):
            before = found[-1] if k == 1 else F.pad(found[-1][:, :-1], (1, 0), value=-1)
            found.append(table.find(before * self.vocabulary + tokens, (before >= 0) & (tokens >= 0)))
        return found

    def log_prob(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Log probability of each target (B, T) after the tokens up to its place (B, T), nats (B, T)."""
        p = torch.full(targets.shape, 1 / self.vocabulary, dtype=self.dtype, device=targets.device)
        for table, context in zip(self.used, self.contexts(tokens), strict=False):
            total, left = table.left(context, self.dtype)
            place = table.find(context * self.vocabulary + targets, (context >= 0) & (targets >= 0))
            p = (table.counted(place, self.dtype) + left * p) / total
        return p.log()

    def logits(self, history: Tensor) -> Tensor:
        """Log probabilities of all tokens after histories (B, T), where -1 is none: (B, vocabulary)."""
        p = torch.full((len(history), self.vocabulary), 1 / self.vocabulary, dtype=self.dtype, device=history.device)
        for table, contexts in zip(self.used, self.contexts(history), strict=False):
            context = contexts[:, -1]
            total, left = table.left(context, self.dtype)
            p *= left[:, None]
            first, last = (torch.searchsorted(table.keys, (context + i) * self.vocabulary) for i in (0, 1))
            number = torch.where(context >= 0, last - first, 0)  # the context's n-grams stand side by side
            row = torch.arange(len(history), device=history.device).repeat_interleave(number)
            place = torch.arange(len(row), device=history.device) + (first - number.cumsum(0) + number)[row]
            p[row, table.keys[place] % self.vocabulary] += table.counted(place, self.dtype)
            p /= total[:, None]
        return p.log()

    def forward(self, tokens: Tensor) -> Tensor:
        """Log probabilities of all tokens after each place (B, T): (B, T, vocabulary)."""
        ends = range(1, tokens.shape[1] + 1)
        seen = max(self.order - 1, 1)
        return torch.stack([self.logits(tokens[:, max(end - seen, 0) : end]) for end in ends], dim=1)

    # -- the protocol of `zoo.nn.samplers.autoregressive` -------------------------------------------------------------------

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Read prompts (B, T), whose rows begin with `padding` (B,) meaningless tokens: next logits, and a state."""
        if padding is not None:
            place = torch.arange(tokens.shape[1], device=tokens.device)
            tokens = tokens.masked_fill(place < padding[:, None], -1)
        state = {"last": tokens[:, -max(self.order - 1, 1) :]}
        return self.logits(state["last"]), state

    def step(self, tokens: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Read one more token per row (B,): next logits (B, vocabulary)."""
        state["last"] = torch.cat([state["last"], tokens[:, None]], 1)[:, -max(self.order - 1, 1) :]
        return self.logits(state["last"])

    def reorder(self, state: dict[str, Tensor], rows: Tensor) -> None:
        """Row b of the state becomes what row `rows[b]` was."""
        state["last"] = state["last"][rows]
