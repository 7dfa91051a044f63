"""Recurrent encoder-decoder with attention."""

from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.signature import Fraction, NonNegative, PositiveInt
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.seq2seq.base import Dropout, EncoderDecoderModel
from zoo.nn.networks.attention_lstm import AttentionLSTM
from zoo.nn.optim.components import Optimizer


@register("model", "seq2seq")
class AttentionSeq2Seq(EncoderDecoderModel):
    """LSTM encoder-decoder with additive attention; the encoder is bidirectional.

    Args:
        spec: what the data looks like.
        d_model: width of embeddings and states.
        n_layers: of the encoder in each direction, and of the decoder.
        dropout: of embeddings, between layers and before the head.
        tie_weights: share one matrix between both embeddings and the head.
        label_smoothing: share of each target that is spread evenly over the vocabulary.
        optimizer: with its learning rate and schedule.
        temperature: default of text generation; 0 is greedy.
        top_p: default of text generation.
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
        optimizer: Optimizer = "adamw",
        temperature: NonNegative = 0.0,
        top_p: Fraction = 1.0,
    ) -> None:
        super().__init__(spec)
        self.net = AttentionLSTM(
            spec.tokens.vocab_size,
            spec.size,
            begin=self.begin,
            d_model=d_model,
            n_layers=n_layers,
            dropout=dropout,
            tie_weights=tie_weights,
        )

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Attention weights (B, 1, T, S) of target positions over source positions."""
        return {"attention": self.net.forward_with_attention(*batch)[1][:, None]}

    def hidden_layers(self) -> list[nn.Module]:
        """The LSTMs."""
        return [self.net.forwards, self.net.backwards, self.net.cells]
