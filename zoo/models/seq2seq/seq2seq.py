"""Models that read one text whole and write another: translation, questions and answers, summaries."""

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
    """LSTMs with attention: one reads the source from both ends, one writes the target and looks back at every step.

    Args:
        spec: what the data looks like.
        d_model: width of embeddings and states.
        n_layers: of the reader in each direction, and of the writer.
        dropout: of embeddings, between layers and before the head.
        tie_weights: one matrix for reading both texts and for predicting.
        label_smoothing: share of each target that is spread over the vocabulary.
        optimizer: what moves the weights, with its learning rate and schedule.
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
        """The weights (B, 1, T, S) by which target tokens look at source tokens."""
        return {"attention": self.net.looking(*batch)[1][:, None]}

    def hidden_layers(self) -> list[nn.Module]:
        """The LSTMs."""
        return [self.net.forwards, self.net.backwards, self.net.cells]
