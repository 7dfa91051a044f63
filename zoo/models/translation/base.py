"""Base class of statistical translation: a word alignment model, and a decoder of given translations."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.space import Space
from zoo.core.spaces import ABSENT, Pair
from zoo.data.batch import Batch
from zoo.models.autoregressive.language_model_base import LanguageModelBase
from zoo.models.baselines.base import Fitted
from zoo.nn.samplers.autoregressive import IncrementalDecoder, sample_tokens
from zoo.nn.samplers.sampling_params import SamplingParams
from zoo.nn.translation.word_aligner import AlignmentKind, WordAligner, by_lengths

IMPOSSIBLE = -1e4  # logit of tokens that do not follow


class TranslationModel(LanguageModelBase, Fitted):
    """A word alignment model p(target | source) with a way to translate; a subclass provides `translate`.

    Sources are read without upper case. A subclass has the settings `iterations`, `null_prob` and `max_pairs`, and
    calls `build_aligner`.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Pair,)

    def build_aligner(self, kind: AlignmentKind) -> WordAligner:
        """An aligner of the tokens, and the tables of `fold`."""
        vocabulary = self.spec.tokens.vocab_size
        self.fit_on = self.hparams["max_pairs"]
        pieces = [] if self.tokenizer is None else self.tokenizer.pieces
        folded, first = case_folding(pieces, vocabulary)
        self.register_buffer("folded", folded, persistent=False)
        self.register_buffer("first", first, persistent=False)
        return WordAligner(vocabulary, kind, self.hparams["null_prob"])

    def fold(self, x: Tensor) -> Tensor:
        """Tokens (B, S) in lower case, the first one as if a space were before it."""
        folded: Tensor = self.folded[x.clamp(min=0)]
        folded[:, :1] = self.first[x[:, :1].clamp(min=0)]
        return torch.where(x < 0, x, folded)

    # -- fitting

    def statistics(self, batch: Batch) -> Tensor:
        """Sources and targets, padded to the context: int32 (B, 2, T)."""
        return torch.stack([F.pad(side, (0, self.spec.size - side.shape[1]), value=ABSENT) for side in batch], 1).int()

    def fit(self, data: Tensor) -> None:
        """EM on pairs (N, 2, T)."""
        x, y = trimmed(data)
        self.net.fit(self.fold(x), y, self.hparams["iterations"])

    # -- likelihood

    def token_nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood (B, T) of the targets in nats, 0 for padding; and the targets."""
        x, y = batch
        return -self.net.log_prob(self.fold(x), y).float(), y

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-likelihood in nats (B,) of targets y given sources x; without y, of x given an empty source."""
        if y is None:
            x, y = torch.full_like(x[:, :1], self.end), x
        return -self.token_nll(Batch(x, y))[0].sum(1)

    def token_hits(self, batch: Batch) -> Tensor:
        """Whether the most likely target token, given those before, is the right one, for every target token (N,)."""
        return self.token_confidence(batch)[1]

    def token_confidence(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Probability of the most likely target token, and whether it is right, for every target token (N,) each."""
        x, y = batch
        writer = self.net.after(self.fold(x))
        logits, state = writer.prefill(torch.full_like(y[:, :1], self.end))
        found = []
        for token in y.clamp(min=0).unbind(1):
            confidence, likeliest = logits.float().softmax(1).max(1)
            found.append((confidence, likeliest == token))
            logits = writer.step(token, state)
        confident, right = (torch.stack(parts, 1)[y >= 0] for parts in zip(*found, strict=True))
        return confident, right

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Posterior probability (B, 1, T, S) of each link; what is missing to one belongs to NULL."""
        x, y = batch
        found = torch.zeros(len(y), 1, y.shape[1], x.shape[1], device=y.device)
        for rows, s, t in by_lengths(x, y):
            emitted, lengths = self.net.emissions(self.fold(x[rows, :s]), y[rows, :t])
            posterior = self.net.alignment.posterior(emitted, lengths, y[rows, :t] >= 0)[0]
            found[rows, 0, :t, :s] = posterior[:, :, 1:].float()
        return {"alignment": found}

    # -- generation

    def translate(self, sources: list[list[int]]) -> list[list[int]]:
        """Target tokens of each source; neither has its end."""
        raise NotImplementedError

    def prepare(self, prompts: list[list[int]]) -> tuple[IncrementalDecoder, list[list[int]]]:
        """A decoder that writes the translation of each prompt, and the begin token of each target."""
        written = [[*tokens, self.end] for tokens in self.translate([prompt[1:] for prompt in prompts])]
        return Dictation(written, self.spec.tokens.vocab_size, self.device), [[self.begin]] * len(prompts)

    def sample_tokens(
        self, rows: list[list[int]], length: int, params: SamplingParams, generator: torch.Generator | None
    ) -> Tensor:
        """Sample targets (n, length) of the sources, from p(target | source)."""
        if not rows:
            return torch.empty(0, length, dtype=torch.long)
        sources = [torch.tensor([*row[1:], self.end]) for row in rows]
        x = torch.nn.utils.rnn.pad_sequence(sources, batch_first=True, padding_value=ABSENT).to(self.device)
        begun, writer = [[self.begin]] * len(rows), self.net.after(self.fold(x))
        steps = sample_tokens(
            writer, begun, params, generator=generator, block_size=length, device=self.device, begin=self.begin
        )
        return next(steps)[0]

    def streamers(self, rows: list[list[int]], limit: int | None, stop: Any) -> Any:
        """Limit targets to the context, for sources of any length."""
        most = self.spec.size if limit is None else min(limit, self.spec.size)
        return self._streamers([0] * len(rows), most, stop)

    def prompt_ids(self, prompt: str) -> list[int]:
        """A source, as in training, without its end."""
        return [self.begin, *self.tokenizer.encode(prompt)]


class Dictation:
    """`IncrementalDecoder` that writes given rows of tokens, each with probability one."""

    context = float("inf")

    def __init__(self, rows: list[list[int]], vocabulary: int, device: torch.device) -> None:
        longest = max(map(len, rows))
        self.vocabulary = vocabulary
        self.rows = torch.tensor([[*row, *row[-1:] * (longest - len(row))] for row in rows], device=device)

    def logits(self, state: dict[str, Tensor]) -> Tensor:
        """Logits (B, V) of the next token; the last one repeats."""
        step = state["step"].clamp(max=state["written"].shape[1] - 1)
        token = state["written"].gather(1, step[:, None])  # (B, 1)
        logits = torch.full((len(token), self.vocabulary), IMPOSSIBLE, device=token.device)
        return logits.scatter(1, token, 0.0)

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Read the begin token of each row, and the tokens after it."""
        step = torch.full((len(tokens),), tokens.shape[1] - 1, device=tokens.device)
        state = {"written": self.rows[: len(tokens)], "step": step}
        return self.logits(state), state

    def step(self, tokens: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Advance each row by one token."""
        state["step"] = state["step"] + 1
        return self.logits(state)

    def reorder(self, state: dict[str, Tensor], rows: Tensor) -> None:
        """Replace row b of the state by row `rows[b]`."""
        state.update({name: values[rows] for name, values in state.items()})

    def joins(self, other: Any) -> bool:
        """Whether another decoder continues a state of this one."""
        return isinstance(other, Dictation) and other.vocabulary == self.vocabulary

    def merge(self, state: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
        """State of the rows of both; the last token of the shorter ones repeats."""
        longest = max(each["written"].shape[1] for each in (state, other))
        place = torch.arange(longest, device=state["step"].device)
        written = [rows[:, place.clamp(max=rows.shape[1] - 1)] for rows in (state["written"], other["written"])]
        return {"written": torch.cat(written), "step": torch.cat([state["step"], other["step"]])}


def case_folding(pieces: list[bytes], vocabulary: int) -> tuple[Tensor, Tensor]:
    """For each token, the token of its lower case (V,); and that with a space before it, for the first of a text (V,).

    A token without such a partner is its own.
    """
    numbers = {piece: i for i, piece in reversed(list(enumerate(pieces)))}
    small = [piece.decode("utf-8", "replace").lower().encode() for piece in pieces]
    folded = [numbers.get(low, i) for i, low in enumerate(small)]
    first = [numbers.get(b" " + low, folded[i]) if low else i for i, low in enumerate(small)]
    rest = range(len(pieces), vocabulary)
    return torch.tensor([*folded, *rest]), torch.tensor([*first, *rest])


def trimmed(data: Tensor) -> tuple[Tensor, Tensor]:
    """Sources (N, S) and targets (N, T), int64, from pairs (N, 2, context)."""
    x, y = data.long().unbind(1)
    return x[:, : int((x != ABSENT).sum(1).max())], y[:, : int((y != ABSENT).sum(1).max())]
