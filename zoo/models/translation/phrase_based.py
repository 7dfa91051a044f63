"""Phrase-based statistical machine translation."""

import logging
import re
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from zoo.core.registry import register
from zoo.core.signature import Count, Fraction, PositiveInt
from zoo.core.spaces import ABSENT
from zoo.core.spec import DataSpec
from zoo.models.baselines.base import gather
from zoo.models.translation.base import TranslationModel, trimmed
from zoo.nn.networks.kneser_ney import KneserNey
from zoo.nn.translation.lattice import DISTANCE, FEATURES, LM, ORIENTATION, Derivation
from zoo.nn.translation.phrases import PhraseTable, extract_phrases, lexical_scores, orientations, symmetrize
from zoo.nn.translation.stack_decoder import LONGEST, StackDecoder
from zoo.nn.translation.tuning import bleu_of, bleu_statistics, minimum_risk
from zoo.nn.translation.word_aligner import WordAligner

WEIGHTS = (0.5, 0.2, 0.1, 0.3, 0.2, 0.2, 0.1, -0.3, 0.5)  # of `FEATURES`, before tuning
TOGETHER = 32  # sentences in one search, or in one extraction
N_BEST = 100  # translations of each sentence, for tuning
WORDS = re.compile(r"\w+|[^\w\s]")
log = logging.getLogger(__name__)


@register("model", "phrase_based")
class PhraseBased(TranslationModel):
    """Phrase-based translation: a phrase table, an n-gram language model, and a stack decoder.

    Alignments by hidden Markov models in both directions are symmetrised, and give all consistent phrase pairs. The
    weights of a log-linear model are tuned for BLEU on validation pairs, so that BLEU of this split is not held out.
    Likelihoods, `sample` and `attention` are those of the alignment model from source to target.

    Args:
        spec: what the data looks like.
        iterations: of EM for IBM model 1, and then for the hidden Markov model.
        null_prob: probability of a target token without a source token.
        max_pairs: most training pairs; a random subset of larger data.
        longest: most tokens of a phrase.
        options: most targets of one source phrase.
        order: length of the n-grams of the language model.
        beam: hypotheses with equally many translated tokens.
        reach: most tokens from the first untranslated one to the begin of the next phrase; 0 keeps the order.
        tune_rounds: translations of the validation pairs for tuning; 0 keeps the initial weights.
        tune_on: most validation pairs for tuning.
    """

    paper = "Koehn, Och & Marcu 2003 (NAACL); Och & Ney 2004 (Computational Linguistics 30)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        iterations: PositiveInt = 5,
        null_prob: Fraction = 0.2,
        max_pairs: PositiveInt = 200_000,
        longest: PositiveInt = 6,
        options: PositiveInt = 20,
        order: Annotated[int, Ge(2)] = 4,
        beam: PositiveInt = 30,
        reach: Count = 0,
        tune_rounds: Count = 4,
        tune_on: PositiveInt = 1000,
    ) -> None:
        super().__init__(spec)
        self.net = self.build_aligner("hmm")
        vocabulary = spec.tokens.vocab_size
        table = PhraseTable(vocabulary, longest, options)
        lm = KneserNey(vocabulary, order, spec.size, self.end)
        self.decoder = StackDecoder(table, lm, beam=beam, reach=reach)
        self.decoder.weights.copy_(torch.tensor(WEIGHTS))

    # -- fitting

    def fit(self, data: Tensor) -> None:
        """Align, extract and count, on pairs (N, 2, T)."""
        super().fit(data)
        x, y = trimmed(data)
        folded, vocabulary = self.fold(x), self.spec.tokens.vocab_size
        inverse = WordAligner(vocabulary, "hmm", self.hparams["null_prob"])
        inverse.fit(y, folded, self.hparams["iterations"])
        forward, backward = self.net.links(folded, y), inverse.links(y, folded)
        links = [symmetrize(a, {(j, i) for i, j in b}) for a, b in zip(forward, backward, strict=True)]
        self.fit_table(without_end(folded, self.end), without_end(y, self.end), links)
        text, inside = F.pad(y, (1, 0), value=self.end), F.pad(y >= 0, (1, 0), value=True)
        starts = torch.zeros_like(inside)
        starts[:, 0] = True
        self.decoder.lm.fit(text[inside], starts[inside])
        self.decoder.fit()

    def fit_table(self, x: Tensor, y: Tensor, links: Sequence[set[tuple[int, int]]]) -> None:
        """Extract the phrases of sources (N, S) and targets (N, T) with their alignments, and count them."""
        longest, table = self.hparams["longest"], self.decoder.table
        linked = torch.tensor([(n, j, i) for n, pairs in enumerate(links) for j, i in pairs]).view(-1, 3)
        vocabulary = self.spec.tokens.vocab_size
        forward = lexical_scores(linked, x, y, vocabulary).masked_fill(y < 0, 0)
        backward = lexical_scores(linked[:, [0, 2, 1]], y, x, vocabulary).masked_fill(x < 0, 0)
        begins = F.pad(torch.bincount(linked[:, 0], minlength=len(x)).cumsum(0), (1, 0))
        sizes, found, turns = (y >= 0).sum(1), [], []
        order = ((x >= 0).sum(1) * (y.shape[1] + 1) + sizes).argsort(stable=True)
        for rows in order.split(TOGETHER * 8):
            matrix = torch.zeros(len(rows), max(int(sizes[rows].max()), 1), max(int((x[rows] >= 0).sum(1).max()), 1))
            for k, n in enumerate(rows.tolist()):
                _, j, i = linked[begins[n] : begins[n + 1]].unbind(1)
                matrix[k, j, i] = 1
            spans = extract_phrases(matrix > 0, sizes[rows], longest)
            turns.append(orientations(matrix > 0, spans))
            found.append(torch.cat([rows[spans[:, :1]], spans[:, 1:]], 1))
        n, top, bottom, left, right = torch.cat(found).unbind(1)
        lexical = torch.stack([sum_between(forward, n, top, bottom), sum_between(backward, n, left, right)], 1)
        table.fit(words_of(x, n, left, right, longest), words_of(y, n, top, bottom, longest), lexical, torch.cat(turns))

    def on_train_start(self) -> None:
        """Fit, then tune, unless resumed from a fitted checkpoint."""
        fitted = bool(self.fitted)
        super().on_train_start()
        data = getattr(self.trainer, "datamodule", None)
        if fitted or data is None or not self.hparams["tune_rounds"]:
            return
        most = self.hparams["tune_on"]
        self.tune(gather(data.val_dataloader(), self.statistics, most)[:most])

    def tune(self, data: Tensor) -> None:
        """Choose the weights for pairs (N, 2, T), in rounds of translation and minimum risk on all translations."""
        x, y = (without_end(side, self.end) for side in trimmed(data))
        sources, references = tokens_of(x), [self.words(row) for row in tokens_of(y)]
        decoder, seen = self.decoder, [dict[tuple[int, ...], Derivation]() for _ in sources]
        best, chosen = -1.0, decoder.weights.clone()
        for number in range(self.hparams["tune_rounds"] + 1):
            lists = self.derivations(sources, N_BEST)
            first = [bleu_statistics(self.words(row[0].words), r) for row, r in zip(lists, references, strict=True)]
            score = float(bleu_of(torch.tensor(first).sum(0).double()))
            log.info("tuning round %s: BLEU %.2f on %s validation pairs", number, 100 * score, len(sources))
            if score > best:
                best, chosen = score, decoder.weights.clone()
            if number == self.hparams["tune_rounds"]:
                break
            for known, new in zip(seen, lists, strict=True):
                known.update({d.words: d for d in new if d.words not in known})
            made = [list(known.values()) for known in seen]
            made = [[*row, *row[:1] * (max(map(len, made)) - len(row))] for row in made]  # padded by the first
            features = torch.tensor([[d.features for d in row] for row in made])
            risks = [
                [bleu_statistics(self.words(d.words), r) for d in row] for row, r in zip(made, references, strict=True)
            ]
            positive = (LM, ORIENTATION, DISTANCE)
            weights = minimum_risk(features, torch.tensor(risks), decoder.weights, positive)
            # Half of the way: translations outside the lists may be much worse under weights far away.
            decoder.weights.copy_((unit(weights) + unit(decoder.weights)) / 2)
        decoder.weights.copy_(chosen)
        log.info("weights: %s", dict(zip(FEATURES, chosen.tolist(), strict=True)))

    def words(self, tokens: Sequence[int]) -> list[str]:
        """Words of a text, as BLEU counts them; the tokens themselves without a tokenizer."""
        if self.tokenizer is None:
            return [str(token) for token in tokens]
        return WORDS.findall(self.tokenizer.decode(tokens))

    # -- generation

    def derivations(self, sources: list[list[int]], most: int = 1) -> list[list[Derivation]]:
        """The best translations of each source, whose end is left out; a source has at most `LONGEST` tokens."""
        found: list[list[Derivation]] = [[] for _ in sources]
        order = sorted(range(len(sources)), key=lambda n: len(sources[n]))
        for start in range(0, len(order), TOGETHER):
            numbers = order[start : start + TOGETHER]
            rows = [torch.tensor(sources[n], dtype=torch.int64) for n in numbers]
            x = pad_sequence(rows, batch_first=True, padding_value=ABSENT).to(self.device)
            lattice = self.decoder.search(self.fold(x), x)
            for k, n in enumerate(numbers):
                found[n] = lattice.best(k, most)
        return found

    def translate(self, sources: list[list[int]]) -> list[list[int]]:
        """The best translation of each source; the parts of a long one are translated separately."""
        parts = [(n, row[i : i + LONGEST]) for n, row in enumerate(sources) for i in range(0, len(row), LONGEST)]
        written: list[list[int]] = [[] for _ in sources]
        for (n, _), found in zip(parts, self.derivations([part for _, part in parts]), strict=True):
            written[n] += found[0].words
        return written


def unit(weights: Tensor) -> Tensor:
    """Weights whose absolute values sum to one; their scale does not change the search."""
    return weights / weights.abs().sum()


def without_end(x: Tensor, end: int) -> Tensor:
    """Tokens (B, T) with the end token replaced by padding."""
    return x.masked_fill(x == end, ABSENT)


def tokens_of(x: Tensor) -> list[list[int]]:
    """Rows (B, T) without padding."""
    return [row[row >= 0].tolist() for row in x]


def sum_between(values: Tensor, row: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """Sums (N,) of values (B, T) from begin to end, exclusive, of rows (N,)."""
    total = F.pad(values.cumsum(1), (1, 0))
    return total[row, end] - total[row, begin]


def words_of(x: Tensor, row: Tensor, begin: Tensor, end: Tensor, longest: int) -> Tensor:
    """Words (N, longest) of x (B, T) from begin to end, exclusive, of rows (N,), padded by -1."""
    index = begin[:, None] + torch.arange(longest)
    return torch.where(index < end[:, None], x[row[:, None], index.clamp(max=x.shape[1] - 1)], -1)
