"""Stack decoding of a log-linear model over phrases (Koehn, Och & Marcu 2003; Och & Ney 2004).

A translation is a sequence of phrase pairs that covers each source word once. Its score is a weighted sum of
`FEATURES`.
Hypotheses with equally many covered words compete in one stack. Those that no later choice can tell apart are
recombined. All sentences of a batch are searched together: hypotheses are rows of tensors.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.networks.kneser_ney import KneserNey
from zoo.nn.translation.lattice import DISTANCE, FEATURES, LM, ORIENTATION, Hypotheses, Lattice, Options
from zoo.nn.translation.phrases import SCORES, PhraseTable, spans

UNKNOWN = -7.0  # log-probability of a word that is copied, because no phrase translates it
LONGEST = 60  # words of a source that are translated together


class StackDecoder(nn.Module):
    """Search for the translation with the highest score.

    The first untranslated word and the begin of the next phrase are at most `reach` apart; 0 is monotone.

    Args:
        table: phrase pairs.
        lm: language model of the target, of bigrams or longer n-grams.
        beam: hypotheses in each stack of each sentence.
        reach: furthest reordering.
        candidates: per hypothesis of the beam, the new ones that the language model scores.
    """

    inner: Tensor  # (N,): log-probability of the words of each phrase that have a whole context within it
    bound: Tensor  # (N,): highest log-probability of the words before them
    weights: Tensor  # (F,)

    def __init__(self, table: PhraseTable, lm: KneserNey, *, beam: int, reach: int, candidates: int = 4) -> None:
        super().__init__()
        self.table, self.lm, self.beam, self.reach, self.candidates = table, lm, beam, reach, candidates
        self.state_size = lm.order - 1
        self.register_buffer("inner", torch.zeros(0))
        self.register_buffer("bound", torch.zeros(0))
        self.register_buffer("weights", torch.zeros(len(FEATURES)))

    @torch.no_grad()
    def fit(self) -> None:
        """Score the phrases of the table by the language model."""
        inner, bound, outside = [], [], self.state_size
        for words in self.table.targets.long().split(2**15):
            exact = self.lm.log_prob(F.pad(words[:, :-1], (1, 0), value=-1), words.clamp(min=0))
            inner.append(exact.masked_fill(words < 0, 0)[:, outside:].sum(1))
            bound.append(self.lm.log_bound(words).masked_fill(words < 0, 0)[:, :outside].sum(1))
        self.inner, self.bound = torch.cat(inner).float(), torch.cat(bound).float()

    # -- options

    def options(self, x: Tensor, copies: Tensor) -> Options:
        """All phrases that translate a part of the sources.

        Args:
            x: source words (B, S), padded by negative numbers.
            copies: target words that replace unknown source words, (B, S).
        """
        longest, table = self.table.longest, self.table
        span = spans(x.shape[1], longest).to(x.device)  # (P, 2)
        index = span[:, :1] + torch.arange(longest, device=x.device)
        rows = torch.where(index < span[:, 1:], F.pad(x, (0, longest), value=-1)[:, index], -1)  # (B, P, longest)
        rows = rows.masked_fill((span[:, 1] > (x >= 0).sum(1)[:, None])[..., None], -1).flatten(0, 1)
        node = table.sources(rows)
        number = torch.where(node >= 0, table.first[node + 1] - table.first[node], 0)
        row = torch.arange(len(rows), device=x.device).repeat_interleave(number)
        entry = torch.arange(len(row), device=x.device) + (table.first[node] - number.cumsum(0) + number)[row]
        sentence, place = row // len(span), row % len(span)
        words = table.targets[entry].long()
        some = torch.stack([torch.zeros_like(entry), torch.zeros_like(entry), torch.ones_like(entry)], 1)
        features = torch.cat([self.inner[entry, None], table.scores[entry], some, (words >= 0).sum(1, True)], 1)
        known = torch.zeros(x.shape, dtype=torch.bool, device=x.device)
        single = span[place, 1] - span[place, 0] == 1
        known[sentence[single], span[place[single], 0]] = True
        b, i = ((x >= 0) & ~known).nonzero(as_tuple=True)
        copied = F.pad(copies[b, i, None], (0, longest - 1), value=-1)
        alone = torch.tensor([0.0, *[UNKNOWN] * len(SCORES), 0, 0, 1, 1], device=x.device).expand(len(b), -1)
        found = Options(
            torch.cat([sentence, b]),
            torch.cat([span[place, 0], i]),
            torch.cat([span[place, 1], i + 1]),
            torch.cat([words, copied]),
            torch.cat([features, alone]).double(),
            torch.cat([self.bound[entry], self.bound.new_zeros(len(b))]).double(),
            torch.cat([table.orientation[entry], table.orientation.new_zeros(len(b), 3)]).double(),
        )
        return found[(found.sentence * x.shape[1] + found.begin).argsort(stable=True)]

    def future(self, options: Options, estimate: Tensor, shape: torch.Size) -> Tensor:
        """Highest estimate of each source span, from any sequence of options: (B, S + 1, S + 1), by begin and end.

        It bounds the score of what remains from above, as long as the weights of orientation and distance are positive.
        """
        size = shape[1] + 1
        place = (options.sentence * size + options.begin) * size + options.end
        best = torch.full((shape[0] * size * size,), -torch.inf, dtype=estimate.dtype, device=estimate.device)
        best = best.scatter_reduce(0, place, estimate, "amax").view(shape[0], size, size)
        index = torch.arange(size, device=estimate.device)
        best[:, index, index] = 0
        for length in range(2, size):
            begin = index[: size - length]
            for part in range(1, length):
                joined = best[:, begin, begin + part] + best[:, begin + part, begin + length]
                best[:, begin, begin + length] = torch.maximum(best[:, begin, begin + length], joined)
        return best

    # -- search

    @torch.no_grad()
    def search(self, x: Tensor, copies: Tensor) -> Lattice:
        """Search translations of sources (B, S), padded by negative numbers; `copies` replace unknown words."""
        options, weights = self.options(x, copies), self.weights.double()
        local = options.features @ weights
        estimate = local + weights[LM] * options.bound
        future, (n, size) = self.future(options, estimate, x.shape), x.shape
        pointers = torch.bincount(options.sentence * size + options.begin, minlength=x.numel())
        pointers = F.pad(pointers.cumsum(0), (1, 0))  # the options from word w of sentence b on begin at b S + w
        lengths, none = (x >= 0).sum(1), torch.full((n,), -1, device=x.device)
        history = torch.full((n, self.state_size), -1, device=x.device)
        history[:, -1] = self.lm.separator
        row = torch.arange(n, device=x.device)
        begin = Hypotheses(
            row, x < 0, torch.zeros(n, 2, dtype=torch.int64, device=x.device), history, torch.zeros(n).to(local),
            future[row, 0, lengths], none, none, torch.zeros(n, 3).to(local),
        )  # fmt: skip
        pending: list[list[Hypotheses]] = [[begin], *([] for _ in range(size))]  # by number of covered words
        arcs, nodes, offset = [], [], 0
        for number, arrived in enumerate(pending):
            if not arrived:
                continue
            steps, node, stack = self.recombine(Hypotheses.join(arrived))
            arcs.append(steps)
            nodes.append(node + offset)
            if number < size:
                new = self.expand(stack, offset, options, local, estimate, future, pointers, lengths)
                grown = new.covered.sum(1) - (size - lengths)[new.sentence]
                for ends in torch.unique(grown).tolist():
                    pending[ends].append(new[grown == ends])
            offset += len(stack.score)
        return Lattice(options, Hypotheses.join(arcs), torch.cat(nodes), n)

    def recombine(self, arrived: Hypotheses) -> tuple[Hypotheses, Tensor, Hypotheses]:
        """Merge hypotheses with equal futures, and keep the best of each sentence.

        Returns:
            Steps that lead to the hypotheses that are kept, the number of the hypothesis for each, and these.
        """
        arrived = arrived[arrived.score.argsort(descending=True, stable=True)]
        device = arrived.score.device
        size = arrived.covered.shape[1]
        bits = (arrived.covered.long() << torch.arange(size, device=device)).sum(1)
        key = (arrived.sentence * (size + 1) + arrived.last[:, 0]) * (size + 1) + arrived.last[:, 1]
        for column in (torch.unique(bits, return_inverse=True)[1], *arrived.history.unbind(1)):
            key = torch.unique(key * (int(column.max()) + 2) + column + 1, return_inverse=True)[1]
        first = torch.full((int(key.max()) + 1,), len(key), device=device)
        first = first.scatter_reduce(0, key, torch.arange(len(key), device=device), "amin")
        stack = arrived[first]  # the best of each class
        kept = best_of_each(stack.sentence, stack.score + stack.future, self.beam)
        number = torch.full_like(first, -1)
        number[kept] = torch.arange(len(kept), device=device)
        survives = number[key] >= 0
        return arrived[survives], number[key][survives], stack[kept]

    def expand(
        self, stack: Hypotheses, offset: int, options: Options, local: Tensor, estimate: Tensor, future: Tensor,
        pointers: Tensor, lengths: Tensor,
    ) -> Hypotheses:  # fmt: skip
        """Append one phrase to each hypothesis in all ways, and score the most promising ones."""
        weights, size = self.weights.double(), stack.covered.shape[1]
        place = torch.arange(size, device=lengths.device)
        left = torch.where(stack.covered, place + 1, 0).cummax(1).values  # begin of the gap around each word
        right = torch.where(stack.covered, place, size).flip(1).cummin(1).values.flip(1)  # its end
        gap = torch.where(stack.covered, size, place).amin(1)  # first untranslated word; `size` if there is none
        base, last = stack.sentence * size, torch.minimum(gap + self.reach + 1, lengths[stack.sentence])
        first = pointers[base + torch.minimum(gap, last)]
        number = pointers[base + last] - first
        row = torch.arange(len(base), device=base.device).repeat_interleave(number)
        option = torch.arange(len(row), device=base.device) + (first - number.cumsum(0) + number)[row]
        fits = options.end[option] <= right[row, options.begin[option]]  # `right` of a covered word is itself
        row, option = row[fits], option[fits]
        start, stop, b = options.begin[option], options.end[option], stack.sentence[row]
        before, after = stack.last[row].unbind(1)
        turn = torch.where(start == after, 0, torch.where((stop == before) & (after > 0), 1, 2))
        step = torch.stack([options.orientation[option, turn], -(start - after).abs().double()], 1)
        score = stack.score[row] + step @ weights[ORIENTATION : DISTANCE + 1]
        outer, inner = left[row, start], right[row, start]
        rests = stack.future[row] - future[b, outer, inner] + future[b, outer, start] + future[b, stop, inner]
        grown = stack.covered.sum(1)[row] + stop - start
        rank = score + estimate[option] + rests
        keep = best_of_each(b * (size + 1) + grown, rank, self.candidates * self.beam)
        row, option, start, stop = row[keep], option[keep], start[keep], stop[keep]
        nats, history = self.log_prob(stack.history[row], options.words[option], grown[keep] == size)
        return Hypotheses(
            stack.sentence[row],
            stack.covered[row] | ((place >= start[:, None]) & (place < stop[:, None])),
            torch.stack([start, stop], 1),
            history,
            score[keep] + local[option] + weights[LM] * nats,
            rests[keep],
            row + offset,
            option,
            torch.cat([nats[:, None], step[keep]], 1),
        )

    def log_prob(self, history: Tensor, words: Tensor, complete: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability (N,) of the first words of phrases (N, L) after histories (N, H), and the new histories.

        Later words have all their context in the phrase. A complete translation includes the end.
        """
        size, number = self.state_size, (words >= 0).sum(1)
        text = torch.cat([history, words], 1)  # (N, H + L)
        targets = text[:, size : 2 * size]
        read = text[:, : size + targets.shape[1] - 1]
        scored = self.lm.log_prob(read, F.pad(targets, (size - 1, 0)).clamp(min=0))[:, size - 1 :]
        nats = scored.masked_fill(targets < 0, 0).sum(1)
        new = text.gather(1, number[:, None] + torch.arange(size, device=text.device))
        ends = complete.nonzero()[:, 0]
        end = torch.full((len(ends), size), self.lm.separator, device=text.device)
        nats[ends] += self.lm.log_prob(new[ends], end)[:, -1]
        return nats, new


def best_of_each(group: Tensor, score: Tensor, most: int) -> Tensor:
    """Indices of the `most` highest scores (N,) of each group (N,)."""
    order = score.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    ordered = group[order]
    index = torch.arange(len(order), device=order.device)
    begins = torch.where(F.pad(ordered[1:] != ordered[:-1], (1, 0), value=True), index, 0).cummax(0).values
    return order[index - begins < most]
