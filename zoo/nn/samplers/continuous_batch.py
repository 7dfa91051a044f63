"""Continuous batching: rows join and leave a batch of an incremental decoder between any two tokens.

Each row has its own sampling parameters and its own random numbers. It gets the tokens that `sample_tokens` samples for
it alone, and equal log-probabilities up to rounding.

    batch = ContinuousBatch(model.net)
    batch.join([Row(prompt, SamplingParams(), stream)])
    while batch.rows:
        for row, drawn in batch.draw():
            ...
        batch.leave(finished)
        batch.advance()
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.nn.samplers.autoregressive import BLOCK_SIZE, IncrementalDecoder, RowNoise, fit_prompt, prefill, truncate
from zoo.nn.samplers.constraint import Vocabulary
from zoo.nn.samplers.logit_rules import LogitRules
from zoo.nn.samplers.sampling_params import COLDEST, SamplingParams, inverse_cdf, sample_truncated


def row_streams(n: int, seed: int | None) -> list[torch.Generator]:
    """Random streams of n rows, those that `sample_tokens` gives to n prompts; None seeds from torch's generator."""
    return RowNoise(n, None if seed is None else torch.Generator().manual_seed(seed)).streams


class Drawn(NamedTuple):
    """A sampled token.

    Args:
        token: its id.
        log_prob: nats under the model, without temperature, truncation and penalties.
        top: likeliest tokens with their log-probabilities, as many as `n_top` of the row.
    """

    token: int
    log_prob: float
    top: list[tuple[int, float]]


class Row:
    """A row of a continuous batch.

    Args:
        prompt: token ids.
        params: sampling parameters.
        stream: source of its random numbers.
        n_top: number of likeliest tokens to report.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        stream: torch.Generator,
        *,
        n_top: int = 0,
    ) -> None:
        self.prompt, self.params, self.stream, self.n_top = list(prompt), params, stream, n_top
        self.tokens: list[int] = []  # that the decoder's state holds, or will hold after the next `advance`
        self.uniform: list[float] = []
        self.rules: LogitRules | None = None

    def next_uniform(self) -> float:
        """The next random number in [0, 1)."""
        if not self.uniform:
            self.uniform = torch.rand(BLOCK_SIZE, generator=self.stream).tolist()[::-1]
        return self.uniform.pop()

    def begin(
        self, vocab_size: int, begin: int | None, vocabulary: Vocabulary | None, device: torch.device | str
    ) -> None:
        """Prepare the rules; `begin` as the first token of the prompt is not a part of the text."""
        if self.params.has_rules or self.params.repetition_penalty != 1:
            self.rules = LogitRules(self.params, self.prompt, vocab_size, begin, vocabulary, device)

    def record(self, token: int) -> None:
        """Append a generated token."""
        self.tokens.append(token)
        if self.rules is not None:
            self.rules.record(token)


class Group(NamedTuple):
    """Rows of a batch that are sampled by the same operations.

    Args:
        where: their indices (n,).
        temperature: of each (n, 1); None if all are greedy, and 1 if all are 1.
        limits: top-k, top-p, min-p and typical-p: numbers, or of each (n, 1); empty without truncation.
    """

    where: Tensor
    temperature: Tensor | float | None
    limits: list[Any]

    def sample(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Tokens (n,) from logits (n, V) by uniform numbers (n,)."""
        if self.temperature is None:
            return logits.argmax(-1)
        scaled = logits / self.temperature if isinstance(self.temperature, Tensor) else logits
        return sample_truncated(scaled, uniform, *self.limits) if self.limits else inverse_cdf(scaled, uniform)


def groups_of(params: Sequence[SamplingParams], device: torch.device | str) -> list[Group]:
    """Rows by the operations that they need: greedy, plain, and truncated ones."""
    greedy = [i for i, p in enumerate(params) if p.temperature < COLDEST]
    plain = [i for i, p in enumerate(params) if p.temperature >= COLDEST and not p.truncates]
    cut = [i for i, p in enumerate(params) if p.temperature >= COLDEST and p.truncates]
    found = []
    for group in filter(None, (greedy, plain, cut)):

        def column(name: str, usual: float | None = None, group: list[int] = group) -> Any:
            values = [getattr(params[i], name) for i in group]
            if all(value == usual for value in values):
                return usual
            return torch.tensor(values, device=device)[:, None]

        where = torch.tensor(group, device=device)
        temperature = None if group is greedy else column("temperature", 1.0)
        limits = [column("top_k"), column("top_p"), column("min_p", 0.0), column("typical_p", 1.0)]
        found.append(Group(where, temperature, limits if group is cut else []))
    return found


class ContinuousBatch:
    """Rows that are decoded together.

    A decoder without `merge` takes one group of rows, once. Rows that outgrow the context continue from its last half.
    Decoders of different sources share a batch where their method `joins` allows it, as those of one encoder-decoder.
    The state of each row then holds its encoded source.

    Args:
        decoder: predicts the next token.
        device: of the decoder.
        begin: the token before a text, which the repetition penalty does not count.
        vocabulary: of a text model, for constraints.
    """

    def __init__(
        self,
        decoder: IncrementalDecoder,
        *,
        device: torch.device | str = "cpu",
        begin: int | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        self.decoder: Any = decoder
        self.device, self.begin, self.vocabulary = device, begin, vocabulary
        self.rows: list[Row] = []
        self.logits: Tensor = torch.empty(0)  # (B, V) of the next token
        self.state: Any = None
        self.columns = 0  # of the state, with padding
        self.unread = 0  # newest tokens of each row that the state does not hold yet
        self._groups: tuple[list[Row], list[Group]] = self.rows, []  # of these rows

    @property
    def merges(self) -> bool:
        """Whether rows can join a batch that has rows."""
        able = getattr(self.decoder, "merges", None)
        return hasattr(self.decoder, "merge") and (able is None or self.state is None or able(self.state))

    def fits(self, decoder: IncrementalDecoder) -> bool:
        """Whether rows of a decoder can join."""
        joins = getattr(self.decoder, "joins", None)
        return self.merges and (decoder is self.decoder or (joins is not None and joins(decoder)))

    @torch.no_grad()
    def join(self, rows: Sequence[Row], decoder: IncrementalDecoder | None = None) -> None:
        """Read the prompts of new rows.

        Args:
            rows: new ones.
            decoder: that reads their prompts; None is that of the batch. See `fits`.

        Raises:
            ConfigError: an empty prompt.
        """
        for row in rows:
            row.tokens = fit_prompt(self.decoder, row.prompt)
        self._prefill(rows, self.decoder if decoder is None else decoder)
        for row in rows:
            row.begin(self.logits.shape[1], self.begin, self.vocabulary, self.device)

    @torch.no_grad()
    def draw(self) -> list[tuple[Row, Drawn]]:
        """Sample the next token of each row."""
        self.unread = 1
        log_probs, logits = self.logits.log_softmax(-1), self.logits
        uniform = torch.tensor([row.next_uniform() for row in self.rows], device=self.device)
        for i, row in enumerate(self.rows):
            if row.rules is not None:
                logits = logits.clone() if logits is self.logits else logits
                logits[i] = row.rules.apply(logits[i])
        tokens = self._sample(logits, uniform)
        chosen = log_probs.gather(1, tokens[:, None]).squeeze(1).tolist()
        found = []
        most = max(row.n_top for row in self.rows)
        best = [x.tolist() for x in log_probs.topk(min(most, log_probs.shape[1]))] if most else None
        for i, (row, token, log_prob) in enumerate(zip(self.rows, tokens.tolist(), chosen, strict=True)):
            row.record(token)
            top = list(zip(best[1][i], best[0][i], strict=True))[: row.n_top] if best else []
            found.append((row, Drawn(token, log_prob, top)))
        return found

    def _sample(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Tokens (B,) from logits (B, V): greedy, plain and truncated rows, each as if alone."""
        if self._groups[0] is not self.rows:
            self._groups = self.rows, groups_of([row.params for row in self.rows], self.device)
        groups = self._groups[1]
        if len(groups) == 1:
            return groups[0].sample(logits, uniform)
        tokens = uniform.new_empty(len(uniform), dtype=torch.long)
        for group in groups:
            tokens[group.where] = group.sample(logits[group.where], uniform[group.where])
        return tokens

    def leave(self, gone: Collection[Row]) -> None:
        """Remove rows."""
        kept = self._without(gone)
        if len(kept) < len(self.rows):
            self._keep(kept)

    @torch.no_grad()
    def advance(self) -> None:
        """Read the sampled token of each row."""
        if not self.rows or not self.unread:
            return
        if self.columns >= self.decoder.context and self.merges:
            self._trim()
        if self.columns < self.decoder.context:
            newest = torch.tensor([row.tokens[-1] for row in self.rows], device=self.device)
            self.logits, self.columns = self.decoder.step(newest, self.state).float(), self.columns + 1
            self.unread = 0
            return
        full = [row for row in self.rows if len(row.tokens) > self.decoder.context]
        again = full if self.merges else self.rows
        reader = self.decoder
        if hasattr(reader, "of_rows"):
            where = [i for i, row in enumerate(self.rows) if any(row is one for one in again)]
            reader = reader.of_rows(self.state, torch.tensor(where, device=self.device))
        for row in again:
            row.tokens = truncate(self.decoder, row.tokens)
        if len(again) < len(self.rows):
            self._keep(self._without(again))
            self.advance()
        else:
            self.rows = []
        self.unread = 0
        self._prefill(list(again), reader)

    # -- the state -----------------------------------------------------------------------------------------------

    def _prefill(self, rows: Sequence[Row], reader: IncrementalDecoder) -> None:
        """Read the tokens of rows, and append the rows."""
        logits, state, _ = prefill(reader, [row.tokens for row in rows], self.device)
        columns = max(len(row.tokens) for row in rows)
        if self.rows:
            if not self.merges:
                raise ConfigError(f"decoder={type(self.decoder).__name__}: without merge(). Use a new batch.")
            state, logits = self.decoder.merge(self.state, state), torch.cat([self.logits, logits])
            columns = max(columns, self.columns)
        self.rows, self.state, self.logits, self.columns = [*self.rows, *rows], state, logits, columns

    def _without(self, gone: Collection[Row]) -> list[int]:
        """Indices of the other rows."""
        ids = set(map(id, gone))
        return [i for i, row in enumerate(self.rows) if id(row) not in ids]

    def _keep(self, kept: list[int]) -> None:
        self.rows = [self.rows[i] for i in kept]
        if not kept:
            self.state, self.columns = None, 0
            return
        where = torch.tensor(kept, device=self.device)
        self.decoder.reorder(self.state, where)
        self.logits = self.logits.index_select(0, where)
        if self.merges:
            self._trim()

    def _trim(self) -> None:
        """Remove columns that no row needs, from a state that has columns."""
        if hasattr(self.decoder, "trim"):
            self.decoder.trim(self.state)
        self.columns = max(len(row.tokens) for row in self.rows) - self.unread
