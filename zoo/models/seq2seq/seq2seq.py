"""Sequence-to-sequence models: a target predicted from a source by any encoder-decoder."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from zoo.core.registry import register
from zoo.core.signature import Count, Fraction, NonNegative
from zoo.core.space import Space
from zoo.core.spaces import ABSENT, Pair
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import require_tokenizer
from zoo.models.autoregressive.base import flatten_logits, token_nll
from zoo.models.autoregressive.language_model_base import LanguageModelBase
from zoo.nn.networks.components import Backbone
from zoo.nn.optim.components import Optimizer
from zoo.nn.samplers.autoregressive import IncrementalDecoder
from zoo.nn.samplers.text_stream import TextStreamer


@register("model", "seq2seq")
class Seq2Seq(LanguageModelBase):
    """Sequence-to-sequence model over an encoder-decoder, the backbone.

    `loss` is nats per target token, end included, with label smoothing (Szegedy et al. 2016, arXiv:1512.00567).
    Validation and likelihoods are without smoothing. A prompt of `generate` is a source, and its completion the target;
    `sample` has an empty source.

    Args:
        spec: what the data looks like.
        backbone: the encoder-decoder: attention_lstm, transformer_encoder_decoder, or a registered one.
        label_smoothing: share of each target that is spread evenly over the vocabulary.
        optimizer: with its learning rate and schedule; muon takes the matrices of the backbone's blocks.
        temperature: default of text generation; 0 is greedy.
        top_p: default of text generation.
        begin_token: token before a target; None is that before a text.
        source_affixes: put the tokens around a source that the tokenizer's post-processor does, in place of its end.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Pair,)
    paper = "Sutskever et al. 2014 (arXiv:1409.3215); Bahdanau et al. 2014 (arXiv:1409.0473); Vaswani et al. 2017"

    def __init__(
        self,
        spec: DataSpec,
        *,
        backbone: Backbone = "attention_lstm",
        label_smoothing: Fraction = 0.1,
        optimizer: Optimizer = "adamw",
        temperature: NonNegative = 0.0,
        top_p: Fraction = 1.0,
        begin_token: Count | None = None,
        source_affixes: bool = False,
    ) -> None:
        super().__init__(spec)
        size, context = self.network_size
        self.net = self.build_component("backbone", "backbone", size, size, context, method="after")
        if not hasattr(self.net, "cross_attention"):
            self.lacks("attention")

    @property
    def network_size(self) -> tuple[int, int]:
        """Number of token ids, and most tokens of a source or target."""
        return self.spec.tokens.vocab_size, self.spec.size

    @property
    def begin(self) -> int:
        """Token before a target."""
        own = self.hparams["begin_token"]
        return super().begin if own is None else own

    def enclosed(self, sources: list[list[int]]) -> Tensor:
        """Sources without their end -> the sources as the network reads them (B, S), negative for padding."""
        before, after = list[int](), [self.end]
        if self.hparams["source_affixes"] and self.tokenizer is not None:
            before, after = self.tokenizer.affixes
        rows = [torch.tensor([*before, *source, *after]) for source in sources]
        return pad_sequence(rows, batch_first=True, padding_value=ABSENT).to(self.device)

    # -- likelihood ------------------------------------------------------------------------------------------

    def read(self, batch: Batch) -> Batch:
        """Sources (B, S) and targets (B, T) of a batch of data."""
        if not self.hparams["source_affixes"]:
            return batch
        return Batch(self.enclosed([row[row >= 0][:-1].tolist() for row in batch.x]), batch.y)

    def shift_right(self, target: Tensor) -> Tensor:
        """The token before each target token, (B, T); padding becomes token 0."""
        return F.pad(target[:, :-1].clamp(min=0), (1, 0), value=self.begin)

    def predict(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits (B, T, V) of every target token, given the source (B, S) and the targets before it."""
        return self.net(source, self.shift_right(target))

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of every target token (B, T, V), and the targets (B, T), negative for padding."""
        source, target = self.read(batch)
        return self.predict(source, target), target

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Smoothed nats per target token."""
        logits, target = flatten_logits(*self.logits(batch))
        smoothing = self.hparams["label_smoothing"]
        return {"loss": F.cross_entropy(logits, target, ignore_index=ABSENT, label_smoothing=smoothing)}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-likelihood in nats (B,) of targets y given sources x; without y, of x given an empty source."""
        if y is None:
            x, y = torch.full_like(x[:, :1], self.end), x
        x = self.read(Batch(x, y)).x
        return -token_nll(self.predict(x, y), y).sum(1)

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Attention weights (B, H, T, S) of target positions over source positions, of each layer."""
        source, target = self.read(batch)
        return self.net.cross_attention(source, self.shift_right(target))

    # -- generation ---------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Sample targets of an empty source, token ids (n, T); the default temperature is 1."""
        return super().sample(n, condition=condition, generator=generator, **{"temperature": 1.0} | options)

    def prepare(self, prompts: list[list[int]]) -> tuple[IncrementalDecoder, list[list[int]]]:
        """A decoder conditioned on the prompts as sources, and the begin token of each target."""
        source = self.enclosed([prompt[1:] for prompt in prompts])  # (B, S)
        return self.net.after(source), [[self.begin]] * len(prompts)

    def streamers(
        self, rows: list[list[int]], limit: int | None, stop: list[str] | tuple[str, ...]
    ) -> list[TextStreamer]:
        """Limit targets to the context, for sources of any length."""
        most = self.spec.size if limit is None else min(limit, self.spec.size)
        return self._streamers([0] * len(rows), most, stop)

    def prompt_ids(self, prompt: str) -> list[int]:
        """A source, as in training: its end follows in `prepare`."""
        return [self.begin, *require_tokenizer(self).encode(prompt)]
