"""Transformer encoder-decoders."""

from torch import Tensor, nn

from zoo.core.registry import register
from zoo.core.signature import Count, Fraction, NonNegative, PositiveInt
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.seq2seq.base import Dropout, EncoderDecoderModel
from zoo.nn.blocks.attention import attention_maps
from zoo.nn.blocks.position_encoding import PositionEncoding
from zoo.nn.blocks.transformer_config import MLPKind, NormKind, TransformerConfig
from zoo.nn.networks.encoder_decoder import EncoderDecoder
from zoo.nn.optim.components import Optimizer


class TransformerEncoderDecoder(EncoderDecoderModel):
    """Base class of models whose `net` is an `EncoderDecoder`.

    Args:
        spec: what the data looks like.
    """

    net: EncoderDecoder

    def attention(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-attention weights (B, H, T, S) of each decoder block."""
        maps = attention_maps(self.net, lambda: self.net(*self.read(batch)))
        return {name: weights for name, weights in maps.items() if "cross" in name}

    def hidden_layers(self) -> list[nn.Module]:
        """Blocks of encoder and decoder."""
        return [self.net.encoder.blocks, self.net.decoder.blocks]


@register("model", "transformer")
class TransformerSeq2Seq(TransformerEncoderDecoder):
    """Transformer encoder-decoder for translation and other pairs of texts.

    Args:
        spec: what the data looks like.
        d_model: width, a multiple of n_heads.
        n_layers: blocks of the encoder, and of the decoder where `n_decoder` is 0.
        n_decoder: blocks of the decoder; 0 is n_layers.
        n_heads: attention heads.
        d_ff: hidden width of the MLPs; 0 is 4 d_model.
        position_encoding: see `zoo.nn.blocks.position_encoding`.
        norm: see `zoo.nn.blocks.transformer_block.make_norm`.
        pre_norm: normalise before every branch, and not after its sum as in the paper.
        mlp: kind of MLP.
        bias: biases in linear layers.
        qk_norm: RMS normalisation of queries and keys.
        dropout: of embeddings, attention and branches.
        tie_weights: share one matrix between both embeddings and the head.
        label_smoothing: share of each target that is spread evenly over the vocabulary.
        optimizer: with its learning rate and schedule.
        temperature: default of text generation; 0 is greedy.
        top_p: default of text generation.
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
        position_encoding: PositionEncoding = "sinusoidal",
        norm: NormKind = "layernorm",
        pre_norm: bool = False,
        mlp: MLPKind = "relu",
        bias: bool = True,
        qk_norm: bool = False,
        dropout: Dropout = 0.1,
        tie_weights: bool = True,
        label_smoothing: Fraction = 0.1,
        optimizer: Optimizer = "adamw",
        temperature: NonNegative = 0.0,
        top_p: Fraction = 1.0,
    ) -> None:
        super().__init__(spec)
        shape = TransformerConfig(
            d_model,
            n_heads,
            d_ff=d_ff,
            norm=norm,
            norm_place="before" if pre_norm else "after",
            mlp=mlp,
            bias=bias,
            qk_norm=qk_norm,
            dropout=dropout,
        )
        self.net = EncoderDecoder(
            spec.tokens.vocab_size,
            spec.tokens.vocab_size,
            spec.size,
            shape,
            n_encoder=n_layers,
            n_decoder=n_decoder or n_layers,
            begin=self.begin,
            position_encoding=position_encoding,
            tie_weights=tie_weights,
        )
