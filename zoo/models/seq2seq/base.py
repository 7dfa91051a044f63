"""Encoder-decoder models: read a source, predict a target."""

from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from zoo.core.spaces import ABSENT, Pair, Space
from zoo.data.batch import Batch
from zoo.models.autoregressive.base import LanguageModelBase, flatten_logits, token_nll
from zoo.nn.samplers.autoregressive import IncrementalDecoder
from zoo.nn.samplers.text_stream import TextStreamer, text_streamers

Dropout = Annotated[float, Interval(ge=0.0, lt=1.0)]


class EncoderDecoderModel(LanguageModelBase):
    """Base class of encoder-decoder models.

    A subclass sets `net`: `net(source, target)` returns logits (B, T, V), and `net.after(source)` a decoder. `loss` is
    nats per target token, end included, with the setting `label_smoothing` (Szegedy et al. 2016, arXiv:1512.00567).
    Validation and likelihoods are without smoothing. A prompt of `generate` is a source, and its completion the target;
    `sample` has an empty source.

    Args:
        spec: what the data looks like.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Pair,)

    # -- likelihood ------------------------------------------------------------------------------------------

    def read(self, batch: Batch) -> Batch:
        """Sources (B, S) and targets (B, T) of a batch of data."""
        return batch

    def predict(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits (B, T, V) of every target token."""
        return self.net(source, target)

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
        return -token_nll(self.predict(x, y), y).sum(1)

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
        sources = [torch.tensor([*prompt[1:], self.end]) for prompt in prompts]
        source = pad_sequence(sources, batch_first=True, padding_value=ABSENT)  # (B, S)
        return self.net.after(source.to(self.device)), [[self.begin]] * len(prompts)

    def _writers(
        self, rows: list[list[int]], limit: int | None, stop: list[str] | tuple[str, ...]
    ) -> list[TextStreamer]:
        """Limit targets to the context, for sources of any length."""
        most = self.spec.size if limit is None else min(limit, self.spec.size)
        return text_streamers([0] * len(rows), self.spec.size, self.tokenizer.pieces, self.end, stop, most)
