"""Models that read one text whole and write another: translation, questions and answers, summaries."""

from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from zoo.models.base import Batch, Schedule
from zoo.models.text import TextModel, costs, flat, optimized
from zoo.nn.attention import MLPKind, NormKind, Shape, attention_maps
from zoo.nn.attention_lstm import AttentionLSTM
from zoo.nn.decoding import Steps
from zoo.nn.optim import OptimizerKind
from zoo.nn.positions import Positions
from zoo.nn.seq2seq import EncoderDecoder
from zoo.nn.writing import Writer, writers
from zoo.registry import register
from zoo.spec import ABSENT, Betas, Count, DataSpec, Fraction, Kind, NonNegative, Positive, PositiveInt

Dropout = Annotated[float, Interval(ge=0.0, lt=1.0)]


class Seq2Seq(TextModel):
    """What they share. A subclass sets `net`: `net(source, target)` gives logits (B, T, V), `net.after(source)` writes.

    `loss` is nats per target token, with its end, smoothed by the setting `label_smoothing` (Szegedy et al. 2016,
    1512.00567): a share of each target is spread evenly over the vocabulary. Validation and scores are without it.
    A prompt of `generate` is a source, and its completion the target; `sample` writes after an empty source.
    """

    accepts: ClassVar[tuple[Kind, ...]] = ("pair",)
    family = "sequence to sequence"

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
        logits, target = flat(*self.logits(batch))
        smoothing = self.hparams["label_smoothing"]
        return {"loss": F.cross_entropy(logits, target, ignore_index=ABSENT, label_smoothing=smoothing)}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact nats (B,) of the targets y given the sources x; without y, of x as targets of an empty source."""
        if y is None:
            x, y = torch.full_like(x[:, :1], self.end), x
        return -costs(self.predict(x, y), y).sum(1)

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

    def reading(self, prompts: list[list[int]]) -> tuple[Steps, list[list[int]]]:
        """The decoder, once it has read the prompts as sources, and what each target begins with."""
        sources = [torch.tensor([*prompt[1:], self.end]) for prompt in prompts]
        source = pad_sequence(sources, batch_first=True, padding_value=ABSENT)  # (B, S)
        return self.net.after(source.to(self.device)), [[self.begin]] * len(prompts)

    def _writers(self, rows: list[list[int]], limit: int | None, stop: list[str] | tuple[str, ...]) -> list[Writer]:
        """A target may have as many tokens as the context, however long its source is."""
        most = self.spec.dim if limit is None else min(limit, self.spec.dim)
        return writers([0] * len(rows), self.spec.dim, self.tokenizer.pieces, self.end, stop, most)


@register("model", "seq2seq")
class AttentionSeq2Seq(Seq2Seq):
    """LSTMs with attention: one reads the source from both ends, one writes the target and looks back at every step.

    Args:
        spec: what the data looks like.
        d_model: width of embeddings and states.
        n_layers: of the reader in each direction, and of the writer.
        dropout: of embeddings, between layers and before the head.
        tie_weights: one matrix for reading both texts and for predicting.
        label_smoothing: share of each target that is spread over the vocabulary.
        optimizer: muon orthogonalises the updates of the LSTMs' matrices and gives the rest to AdamW.
        lr: of AdamW.
        muon_lr: of Muon's matrices.
        betas: of AdamW.
        weight_decay: decoupled, of all matrices.
        schedule: of both learning rates.
        warmup: batches of linear warm-up.
        temperature: of texts where none is asked for; 0 takes the likeliest token.
        top_p: of texts where none is asked for.
    """

    paper = "Bahdanau et al. 2014 (arXiv:1409.0473)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        d_model: PositiveInt = 256,
        n_layers: PositiveInt = 1,
        dropout: Dropout = 0.2,
        tie_weights: bool = True,
        label_smoothing: Fraction = 0.1,
        optimizer: OptimizerKind = "adamw",
        lr: Positive = 3e-3,
        muon_lr: Positive = 0.02,
        betas: Betas = (0.9, 0.98),
        weight_decay: NonNegative = 0.0,
        schedule: Schedule = "linear",
        warmup: Count = 100,
        temperature: NonNegative = 0.0,
        top_p: Fraction = 1.0,
    ) -> None:
        super().__init__(spec)
        self.net = AttentionLSTM(
            spec.vocab_size,
            spec.dim,
            begin=self.begin,
            d_model=d_model,
            n_layers=n_layers,
            dropout=dropout,
            tie_weights=tie_weights,
        )

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """The weights (B, 1, T, S) by which target tokens look at source tokens."""
        return {"attention": self.net.looking(*batch)[1][:, None]}

    def configure_optimizers(self) -> Any:
        """AdamW for all, or Muon for the matrices of the LSTMs."""
        return optimized(self, nn.ModuleList([self.net.forwards, self.net.backwards, self.net.cells]))


class TransformerPairs(Seq2Seq):
    """Models whose `net` is an `EncoderDecoder`."""

    net: EncoderDecoder

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """The weights (B, H, T, S) by which target tokens look at source tokens, for each decoder block."""
        maps = attention_maps(self.net, lambda: self.net(*self.read(batch)))
        return {name: weights for name, weights in maps.items() if "cross" in name}

    def configure_optimizers(self) -> Any:
        """Muon for the matrices of the blocks and AdamW for the rest, or AdamW for all."""
        return optimized(self, nn.ModuleList([self.net.encoder.blocks, self.net.decoder.blocks]))


@register("model", "transformer")
class TransformerSeq2Seq(TransformerPairs):
    """Transformer: an encoder reads the source, and a decoder that attends to it writes the target.

    Args:
        spec: what the data looks like.
        d_model: width, a multiple of n_heads.
        n_layers: blocks of the encoder, and of the decoder unless `n_decoder` says otherwise.
        n_decoder: blocks of the decoder; 0 is n_layers.
        n_heads: attention heads.
        d_ff: hidden width of the MLPs; 0 is 4 d_model.
        positions: how a token knows its place.
        norm: see `zoo.nn.blocks.make_norm`.
        norm_place: after the sum of every branch, as in the paper, or before every branch.
        mlp: the nonlinearity.
        bias: do linear maps have one?
        qk_norm: divide queries and keys by their RMS.
        dropout: of embeddings, attention and branches.
        tie_weights: one matrix for reading both texts and for predicting.
        label_smoothing: share of each target that is spread over the vocabulary.
        optimizer: muon orthogonalises the updates of matrices and gives the rest to AdamW.
        lr: of AdamW.
        muon_lr: of Muon's matrices.
        betas: of AdamW.
        weight_decay: decoupled, of all matrices.
        schedule: of both learning rates.
        warmup: batches of linear warm-up.
        temperature: of texts where none is asked for; 0 takes the likeliest token.
        top_p: of texts where none is asked for.
    """

    paper = "Vaswani et al. 2017 (arXiv:1706.03762)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        d_model: PositiveInt = 256,
        n_layers: PositiveInt = 3,
        n_decoder: Count = 0,
        n_heads: PositiveInt = 4,
        d_ff: Count = 0,
        positions: Positions = "sinusoidal",
        norm: NormKind = "layernorm",
        norm_place: Literal["before", "after"] = "after",
        mlp: MLPKind = "relu",
        bias: bool = True,
        qk_norm: bool = False,
        dropout: Dropout = 0.1,
        tie_weights: bool = True,
        label_smoothing: Fraction = 0.1,
        optimizer: OptimizerKind = "adamw",
        lr: Positive = 1e-3,
        muon_lr: Positive = 0.02,
        betas: Betas = (0.9, 0.98),
        weight_decay: NonNegative = 0.0,
        schedule: Schedule = "linear",
        warmup: Count = 400,
        temperature: NonNegative = 0.0,
        top_p: Fraction = 1.0,
    ) -> None:
        super().__init__(spec)
        shape = Shape(
            d_model,
            n_heads,
            d_ff=d_ff,
            norm=norm,
            norm_place=norm_place,
            mlp=mlp,
            bias=bias,
            qk_norm=qk_norm,
            dropout=dropout,
        )
        self.net = EncoderDecoder(
            spec.vocab_size,
            spec.vocab_size,
            spec.dim,
            shape,
            n_encoder=n_layers,
            n_decoder=n_decoder or n_layers,
            begin=self.begin,
            positions=positions,
            tie_weights=tie_weights,
        )
