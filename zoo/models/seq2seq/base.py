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
    """What they share. A subclass sets `net`: `net(source, target)` gives logits (B, T, V), `net.after(source)` writes.

    `loss` is nats per target token, with its end, smoothed by the setting `label_smoothing` (Szegedy et al. 2016,
    1512.00567): a share of each target is spread evenly over the vocabulary. Validation and scores are without it.
    A prompt of `generate` is a source, and its completion the target; `sample` writes after an empty source.
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
        """Of every target token (B, T, V), and the targets (B, T), negative where there is none."""
        source, target = self.read(batch)
        return self.predict(source, target), target

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per target token, smoothed."""
        logits, target = flatten_logits(*self.logits(batch))
        smoothing = self.hparams["label_smoothing"]
        return {"loss": F.cross_entropy(logits, target, ignore_index=ABSENT, label_smoothing=smoothing)}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact nats (B,) of the targets y given the sources x; without y, of x as targets of an empty source."""
        if y is None:
            x, y = torch.full_like(x[:, :1], self.end), x
        return -token_nll(self.predict(x, y), y).sum(1)

    # -- writing ---------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Token ids (n, T) of targets of an empty source, drawn as likely as they are unless `temperature` is given."""
        return super().sample(n, condition=condition, generator=generator, **{"temperature": 1.0} | options)

    def prepare(self, prompts: list[list[int]]) -> tuple[IncrementalDecoder, list[list[int]]]:
        """The decoder, once it has read the prompts as sources, and what each target begins with."""
        sources = [torch.tensor([*prompt[1:], self.end]) for prompt in prompts]
        source = pad_sequence(sources, batch_first=True, padding_value=ABSENT)  # (B, S)
        return self.net.after(source.to(self.device)), [[self.begin]] * len(prompts)

    def _writers(
        self, rows: list[list[int]], limit: int | None, stop: list[str] | tuple[str, ...]
    ) -> list[TextStreamer]:
        """A target may have as many tokens as the context, however long its source is."""
        most = self.spec.size if limit is None else min(limit, self.spec.size)
        return text_streamers([0] * len(rows), self.spec.size, self.tokenizer.pieces, self.end, stop, most)
