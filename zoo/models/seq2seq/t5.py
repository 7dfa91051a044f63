"""T5: an encoder-decoder that learns from plain text by restoring what was taken out of it, and then from pairs."""

from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import Count, Fraction, NonNegative, Positive, PositiveInt
from zoo.core.spaces import ABSENT, Pair, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.autoregressive.base import token_nll
from zoo.models.masked.bert import strip_padding
from zoo.models.seq2seq.base import Dropout
from zoo.models.seq2seq.transformer import TransformerEncoderDecoder
from zoo.nn.blocks.position_encoding import PositionEncoding
from zoo.nn.blocks.transformer_config import MLPKind, NormKind, TransformerConfig
from zoo.nn.losses.span_corruption import corrupt_spans
from zoo.nn.networks.encoder_decoder import EncoderDecoder
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.autoregressive import IncrementalDecoder

SEED = 40_000_000  # of what is taken out of texts outside training


@register("model", "t5")
class T5(TransformerEncoderDecoder):
    """T5: a transformer that reads a text and writes another, with relative positions and RMSNorm.

    Pairs: like `transformer`. Plain text: a share `corruption` of the tokens, in spans of `mean_span` on average, is
    taken out; the source has a sentinel in place of each span, and the target is each sentinel with its span. `loss` is
    nats per token of the target. Outside training the same places are taken out each time. What follows a text is the
    span after it: that is what `generate` and `log_prob` mean on plain text.

    Args:
        spec: what the data looks like; the context is its number of tokens.
        d_model: width.
        n_layers: blocks of the encoder, and of the decoder unless `n_decoder` says otherwise.
        n_decoder: blocks of the decoder; 0 is n_layers.
        n_heads: attention heads.
        d_head: width of a head; 0 is d_model / n_heads.
        d_ff: hidden width of the MLPs; 0 is 4 d_model, or two thirds of it for the gated kinds.
        position_encoding: how a token knows its place.
        norm: before every branch.
        norm_eps: added to the variance.
        mlp: the nonlinearity; geglu is T5 1.1.
        attention_scale: of the products of queries and keys; 0 is d_head^-1/2 (the published weights have 1).
        head_scale: of the features before the head (the published weights of tied heads have d_model^-1/2).
        dropout: of embeddings, attention and branches.
        tie_weights: one matrix for reading both texts and for predicting.
        sentinels: identifiers for spans, after those of the vocabulary; pairs need none, but have the same weights.
        corruption: share of a text that is taken out.
        mean_span: tokens of a span on average.
        label_smoothing: share of each target that is spread over the vocabulary.
        optimizer: what moves the weights, with its learning rate and schedule.
        begin_token: what is read before a target; None is what begins a text.
        temperature: of texts where none is asked for; 0 takes the likeliest token.
        top_p: of texts where none is asked for.

    Raises:
        ZooError: plain text of a context that has more spans than there are sentinels.
    """

    accepts = (Pair, Tokens)
    paper = "Raffel et al. 2019 (arXiv:1910.10683)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        d_model: PositiveInt = 256,
        n_layers: PositiveInt = 3,
        n_decoder: Count = 0,
        n_heads: PositiveInt = 4,
        d_head: Count = 0,
        d_ff: Count = 0,
        position_encoding: PositionEncoding = "relative",
        norm: NormKind = "rmsnorm",
        norm_eps: NonNegative = 1e-6,
        mlp: MLPKind = "relu",
        attention_scale: NonNegative = 0.0,
        head_scale: Positive = 1.0,
        dropout: Dropout = 0.1,
        tie_weights: bool = True,
        sentinels: Count = 100,
        corruption: Fraction = 0.15,
        mean_span: Positive = 3.0,
        label_smoothing: Fraction = 0.0,
        optimizer: Optimizer = "muon",
        begin_token: Count | None = None,
        temperature: NonNegative = 0.0,
        top_p: Fraction = 1.0,
    ) -> None:
        super().__init__(spec)
        self.plain = isinstance(spec.x, Tokens)
        self.scored = "_spans" if self.plain else ""
        spans = max(round(spec.size * corruption / mean_span), 1)
        if self.plain and (spans > sentinels or spec.size < 2):
            raise ZooError(
                f"data.context={spec.size} of plain text has {spans} spans and model.sentinels={sentinels}: set "
                f"model.sentinels={spans}, or a shorter context of at least 2."
            )
        shape = TransformerConfig(
            d_model, n_heads, d_head=d_head, d_ff=d_ff, norm=norm, norm_eps=norm_eps, mlp=mlp,
            scale=attention_scale, dropout=dropout,
        )  # fmt: skip
        size = spec.tokens.vocab_size + sentinels
        self.net = EncoderDecoder(
            size,
            size,
            spec.size + 2,  # a text and its sentinel, with an end or a beginning
            shape,
            n_encoder=n_layers,
            n_decoder=n_decoder or n_layers,
            begin=self.begin,
            position_encoding=position_encoding,
            tie_weights=tie_weights,
            head_scale=head_scale,
        )

    @property
    def begin(self) -> int:
        """The token that is read before a target."""
        own = self.hparams["begin_token"]
        return super().begin if own is None else own

    def read(self, batch: Batch) -> Batch:
        """Sources and targets: pairs as they are, plain text with spans taken out."""
        if not self.plain:
            return batch
        h, generator = self.hparams, None if self.training else torch.Generator().manual_seed(SEED)
        first = self.spec.tokens.vocab_size
        return Batch(*corrupt_spans(strip_padding(batch), h["corruption"], h["mean_span"], first, self.end, generator))

    def sizes(self, target: Tensor) -> Tensor:
        """Bytes of text in each target token (B, T); sentinels have none."""
        return super().sizes(target.masked_fill(target >= self.spec.tokens.vocab_size, ABSENT))

    def predict(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits (B, T, V), with the sentinels where they may be asked for."""
        logits = super().predict(source, target)
        return logits if self.plain else logits[..., : self.spec.tokens.vocab_size]

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact nats (B,) of the texts y that follow x; without y, of x alone. There are no sentinels in texts."""
        if not self.plain:
            return super().log_prob(x, y)
        if y is None:
            x, y = x[:, :0], x
        mark = torch.full_like(y[:, :1], self.spec.tokens.vocab_size)
        source = torch.cat([x, mark, torch.full_like(mark, self.end)], dim=1)
        logits = super().predict(source, torch.cat([mark, y], dim=1))[:, 1:, : self.spec.tokens.vocab_size]
        return -token_nll(logits, y).sum(1)

    def prepare(self, prompts: list[list[int]]) -> tuple[IncrementalDecoder, list[list[int]]]:
        """The decoder, which writes no sentinels; in plain text it has been asked for the span after the prompt."""
        mark = [self.spec.tokens.vocab_size] if self.plain else []
        steps, rows = super().prepare([[*prompt, *mark] for prompt in prompts])
        return VocabularySlice(steps, self.spec.tokens.vocab_size), [[*row, *mark] for row in rows]


class VocabularySlice:
    """Steps that predict none but the first `size` identifiers."""

    def __init__(self, steps: IncrementalDecoder, size: int) -> None:
        self.steps, self.size, self.context = steps, size, steps.context

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Any]:
        """As the steps do."""
        logits, state = self.steps.prefill(tokens, padding)
        return logits[:, : self.size], state

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """As the steps do."""
        return self.steps.step(tokens, state)[:, : self.size]

    def reorder(self, state: Any, rows: Tensor) -> None:
        """As the steps do."""
        self.steps.reorder(state, rows)
