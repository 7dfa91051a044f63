"""A decoder of texts that attends to the features of a picture."""

import torch
from torch import Tensor, nn

from zoo.nn.blocks.kv_cache import KVCache
from zoo.nn.blocks.transformer_block import Memory, TransformerStack
from zoo.nn.blocks.transformer_config import TransformerConfig
from zoo.nn.networks.encoder_decoder import EncoderDecoder


class ImageToText(EncoderDecoder):
    """Pictures (B, *shape) and tokens (B, T) -> logits (B, T, n_tokens) of the token after each.

    Args:
        encoder: pictures -> features (B, n_features * d_model), which are attended to as n_features vectors.
        n_tokens: token ids that can be read and predicted.
        context: most tokens of a text.
        n_features: vectors of a picture.
        d_model: width, a multiple of n_heads.
        n_layers: blocks of the decoder.
        n_heads: attention heads.
        dropout: of embeddings, attention and branches.
    """

    def __init__(
        self,
        encoder: nn.Module,
        n_tokens: int,
        context: int,
        *,
        n_features: int,
        d_model: int,
        n_layers: int,
        n_heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.context, self.n_features = context, n_features
        self.encoder = encoder
        self.embedding = nn.Embedding(n_tokens, d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        config = TransformerConfig(d_model, n_heads, dropout=dropout)
        self.decoder = TransformerStack(config, n_layers, context, position_encoding="learned", cross=True)
        self.decoder.reset()
        self.head = nn.Linear(d_model, n_tokens)

    @property
    def blocks(self) -> nn.ModuleList:
        """Blocks of the decoder."""
        return self.decoder.blocks

    def encode(self, source: Tensor) -> Memory:
        """Pictures (B, *shape) -> keys and values of cross-attention, and their mask (B, 1, 1, n_features)."""
        features = self.encoder(source).unflatten(1, (self.n_features, -1))  # (B, n_features, d)
        real = torch.ones(len(source), 1, 1, self.n_features, dtype=torch.bool, device=source.device)
        return self.decoder.precompute_cross_kv(features), real

    def new_cache(self, memory: Memory, padding: Tensor | None) -> KVCache:
        """Empty key-value cache."""
        cache = self.decoder.new_cache(len(memory[1]))
        cache.first = padding
        return cache

    def decode(self, tokens: Tensor, memory: Memory, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, n_tokens) of the token after each of the tokens (B, T), which follow those in the cache."""
        first = None if cache is None else cache.segment_starts(tokens)
        logits: Tensor = self.head(self.decoder.run(self.embedding(tokens), memory=memory, cache=cache, first=first))
        return logits
