"""T5: an encoder-decoder pre-trained by span corruption."""

from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Count, Fraction, NonNegative, Positive
from zoo.core.spaces import ABSENT, Pair, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.base import token_nll
from zoo.models.masked.base import strip_padding
from zoo.models.seq2seq.seq2seq import Seq2Seq
from zoo.nn.losses.span_corruption import corrupt_spans
from zoo.nn.networks.components import Backbone
from zoo.nn.networks.encoder_decoder import ConditionedDecoder, State
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.autoregressive import IncrementalDecoder

SEED = 40_000_000  # of the corrupted spans outside training


@register("model", "t5")
class T5(Seq2Seq):
    """T5: an encoder-decoder, the backbone, pre-trained by span corruption.

    Pairs are handled as by `seq2seq`. From plain text, spans are removed. The source has a sentinel in place of
    each span, and the target is each sentinel with its span. `loss` is nats per target token. Outside training the
    spans are the same each time. On plain text, `generate` and `log_prob` are about the span after a text.

    Args:
        spec: what the data looks like; the context is its number of tokens.
        backbone: the encoder-decoder: transformer_encoder_decoder, attention_lstm, or a registered one.
        num_sentinels: token ids for spans, after those of the vocabulary; unused on pairs.
        noise_density: share of the tokens that are removed.
        mean_noise_span_length: mean number of tokens in a span.
        label_smoothing: share of each target that is spread evenly over the vocabulary.
        optimizer: with its learning rate and schedule; muon takes the matrices of the backbone's blocks.
        begin_token: token before a target; None is that before a text.
        source_affixes: of pairs, see `seq2seq`.
        temperature: default of text generation; 0 is greedy.
        top_p: default of text generation.

    Raises:
        ZooError: plain text with more spans in a context than sentinels, or with `source_affixes`.
    """

    accepts = (Pair, Tokens)
    paper = "Raffel et al. 2019 (arXiv:1910.10683)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        backbone: Backbone = "transformer_encoder_decoder",
        num_sentinels: Count = 100,
        noise_density: Fraction = 0.15,
        mean_noise_span_length: Positive = 3.0,
        label_smoothing: Fraction = 0.0,
        optimizer: Optimizer = "muon",
        begin_token: Count | None = None,
        temperature: NonNegative = 0.0,
        top_p: Fraction = 1.0,
        source_affixes: bool = False,
    ) -> None:
        super().__init__(
            spec,
            backbone=backbone,
            label_smoothing=label_smoothing,
            optimizer=optimizer,
            temperature=temperature,
            top_p=top_p,
            begin_token=begin_token,
            source_affixes=source_affixes,
        )
        self.plain = isinstance(spec.x, Tokens)
        self.scored = "_spans" if self.plain else ""
        if self.plain and source_affixes:
            raise ZooError("model.source_affixes=true: only for pairs of texts. Leave it out.")
        spans = max(round(spec.size * noise_density / mean_noise_span_length), 1)
        if self.plain and (spans > num_sentinels or spec.size < 2):
            raise ZooError(
                f"model.num_sentinels={num_sentinels}: data.context={spec.size} of plain text has {spans} spans. "
                f"Set model.num_sentinels={spans}, or a shorter context of at least 2."
            )

    @property
    def network_size(self) -> tuple[int, int]:
        """Number of token ids with sentinels, and most tokens with a sentinel and a begin or end token."""
        return self.spec.tokens.vocab_size + self.hparams["num_sentinels"], self.spec.size + 2

    def read(self, batch: Batch) -> Batch:
        """Sources and targets: pairs unchanged, plain text with corrupted spans."""
        if not self.plain:
            return super().read(batch)
        h, generator = self.hparams, None if self.training else torch.Generator().manual_seed(SEED)
        first = self.spec.tokens.vocab_size
        how = h["noise_density"], h["mean_noise_span_length"]
        return Batch(*corrupt_spans(strip_padding(batch), *how, first, self.end, generator))

    def sizes(self, target: Tensor) -> Tensor:
        """Bytes of text in each target token (B, T); 0 for sentinels."""
        return super().sizes(target.masked_fill(target >= self.spec.tokens.vocab_size, ABSENT))

    def predict(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits (B, T, V), with sentinels on plain text only."""
        logits = super().predict(source, target)
        return logits if self.plain else logits[..., : self.spec.tokens.vocab_size]

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-likelihood in nats (B,) of the texts y that follow x; without y, of x. Sentinels are excluded."""
        if not self.plain:
            return super().log_prob(x, y)
        if y is None:
            x, y = x[:, :0], x
        mark = torch.full_like(y[:, :1], self.spec.tokens.vocab_size)
        source = torch.cat([x, mark, torch.full_like(mark, self.end)], dim=1)
        logits = super().predict(source, torch.cat([mark, y], dim=1))[:, 1:, : self.spec.tokens.vocab_size]
        return -token_nll(logits, y).sum(1)

    def prepare(self, prompts: list[list[int]]) -> tuple[IncrementalDecoder, list[list[int]]]:
        """A decoder without sentinels; on plain text, of the span after the prompt."""
        mark = [self.spec.tokens.vocab_size] if self.plain else []
        steps, rows = super().prepare([[*prompt, *mark] for prompt in prompts])
        assert isinstance(steps, ConditionedDecoder)
        return VocabularySlice(steps, self.spec.tokens.vocab_size), [[*row, *mark] for row in rows]


class VocabularySlice:
    """A decoder restricted to the first `size` token ids.

    Args:
        steps: decoder.
        size: number of token ids.
    """

    def __init__(self, steps: ConditionedDecoder, size: int) -> None:
        self.steps, self.size, self.context = steps, size, steps.context

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Any]:
        """See `IncrementalDecoder`."""
        logits, state = self.steps.prefill(tokens, padding)
        return logits[:, : self.size], state

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """See `IncrementalDecoder`."""
        return self.steps.step(tokens, state)[:, : self.size]

    def reorder(self, state: Any, rows: Tensor) -> None:
        """See `IncrementalDecoder`."""
        self.steps.reorder(state, rows)

    def merges(self, state: State) -> bool:
        """See `ConditionedDecoder`."""
        return self.steps.merges(state)

    def joins(self, other: Any) -> bool:
        """See `ConditionedDecoder`."""
        return isinstance(other, VocabularySlice) and other.size == self.size and self.steps.joins(other.steps)

    def merge(self, state: State, other: State) -> State:
        """See `ConditionedDecoder`."""
        return self.steps.merge(state, other)

    def trim(self, state: State) -> None:
        """See `ConditionedDecoder`."""
        self.steps.trim(state)

    def of_rows(self, state: State, rows: Tensor) -> "VocabularySlice":
        """See `ConditionedDecoder`."""
        return VocabularySlice(self.steps.of_rows(state, rows), self.size)
