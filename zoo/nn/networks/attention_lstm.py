"""LSTM encoder-decoder with additive attention (Bahdanau et al. 2014, arXiv:1409.0473)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError
from zoo.core.registry import register
from zoo.core.signature import DropoutRate, PositiveInt
from zoo.nn.blocks.lstm import LSTM
from zoo.nn.networks.encoder_decoder import EncoderDecoder, join_rows, select_rows

Memory = tuple[
    Tensor, Tensor, Tensor
]  # features (B, S, d), attention keys (B, S, d), which positions are tokens (B, S)


@dataclass
class Cache:
    """Output and cell (B, d) of each layer after the tokens so far, and how many of the next tokens to skip (B,)."""

    hidden: list[tuple[Tensor, Tensor]]
    padding: Tensor | None = None

    def reorder(self, rows: Tensor) -> None:
        """Replace row b by row `rows[b]`."""
        self.hidden = select_rows(self.hidden, rows)

    def merge(self, other: "Cache") -> "Cache":
        """Cache of the rows of both, after their first tokens."""
        return Cache(join_rows(self.hidden, other.hidden))


@register("backbone", "attention_lstm")
class AttentionLSTM(EncoderDecoder):
    """LSTMs that read a source in both directions and predict a target with attention (Bahdanau et al. 2014).

    The decoder's state s attends to encoder states h by v tanh(W s + U h). The weighted mean and the last token are the
    input of the next state. Padding is masked.

    Args:
        n_in: token ids that can be read, in source and target.
        n_out: token ids that can be predicted, the first of the n_in.
        context: most tokens of a generated target.
        d_model: width, an even number: of embeddings, of both directions together, and of the decoder.
        n_layers: of each direction of the encoder, and of the decoder.
        dropout: of embeddings, between layers, and before the head.
        tie_weights: share one matrix between both embeddings and the head.

    Raises:
        ZooError: an odd width.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        context: int,
        *,
        d_model: PositiveInt = 256,
        n_layers: PositiveInt = 1,
        dropout: DropoutRate = 0.2,
        tie_weights: bool = True,
    ) -> None:
        super().__init__()
        if d_model % 2:
            raise ZooError(f"d_model={d_model}: the encoder has two directions. Choose an even number.")
        self.context, self.n_out, d = context, n_out, d_model
        self.embedding = nn.Embedding(n_in, d)
        nn.init.normal_(self.embedding.weight, std=d**-0.5)
        readers = [nn.ModuleList(LSTM(d, d // 2, batch_first=True) for _ in range(n_layers)) for _ in range(2)]
        self.forwards, self.backwards = readers
        self.query, self.key = nn.Linear(d, d, bias=False), nn.Linear(d, d)
        self.score = nn.Linear(d, 1, bias=False)
        self.start = nn.Linear(d // 2, n_layers * d)
        self.cells = nn.ModuleList(nn.LSTMCell(d if layer else 2 * d, d) for layer in range(n_layers))
        self.out = nn.Linear(3 * d, d)
        self.drop = nn.Dropout(dropout)
        self.head = None if tie_weights else nn.Linear(d, n_out, bias=False)

    @property
    def blocks(self) -> nn.ModuleList:
        """The LSTMs."""
        return nn.ModuleList([self.forwards, self.backwards, self.cells])

    def encode(self, source: Tensor) -> Memory:
        """Source (B, S) -> features, attention keys, and which positions are tokens."""
        real = source >= 0
        place = torch.arange(source.shape[1], device=source.device)
        length = real.sum(1, keepdim=True)
        mirror = torch.where(place < length, length - 1 - place, place)[..., None]  # reverses the tokens of each row
        x = self.drop(self.embedding(source.clamp(min=0)))
        for layer, (forwards, backwards) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            x = self.drop(x) if layer else x
            back = backwards(x.gather(1, mirror.expand_as(x)))[0]
            x = torch.cat([forwards(x)[0], back.gather(1, mirror.expand_as(back))], dim=2)  # (B, S, d)
        return x, self.key(x), real

    def new_cache(self, memory: Memory, padding: Tensor | None = None) -> Cache:
        """Initial state of the decoder, from the backward encoder at the first token."""
        last = memory[0][:, 0].chunk(2, dim=1)[1]  # (B, d / 2)
        outputs = self.start(last).tanh().chunk(len(self.cells), dim=1)
        return Cache([(h, torch.zeros_like(h)) for h in outputs], padding)

    def decode(self, tokens: Tensor, memory: Memory, cache: Cache | None = None) -> Tensor:
        """Logits (B, T, n_out) of the token after each of the tokens (B, T), which follow those in the cache."""
        return self._run(tokens, memory, cache or self.new_cache(memory))[0]

    def cross_attention(self, source: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Attention weights (B, 1, T, S)."""
        memory = self.encode(source)
        return {"attention": self._run(tokens, memory, self.new_cache(memory))[1][:, None]}

    def _run(self, tokens: Tensor, memory: Memory, cache: Cache) -> tuple[Tensor, Tensor]:
        """Decode tokens one by one: logits (B, T, n_out) and attention weights (B, T, S)."""
        x = self.drop(self.embedding(tokens))
        features: list[Tensor] = []
        looks: list[Tensor] = []
        padding, cache.padding = cache.padding, None
        for t, embedded in enumerate(x.unbind(1)):
            weights = self._attend(cache.hidden[-1][0], memory)
            found = torch.bmm(weights.to(memory[0].dtype)[:, None], memory[0])[:, 0]  # (B, d)
            entering, fresh = torch.cat([embedded, found.to(embedded.dtype)], dim=1), list[tuple[Tensor, Tensor]]()
            for layer, (cell, state) in enumerate(zip(self.cells, cache.hidden, strict=True)):
                h, c = cell(self.drop(entering) if layer else entering, state)
                if padding is not None:
                    passed = (t < padding)[:, None]
                    h, c = torch.where(passed, state[0], h), torch.where(passed, state[1], c)
                fresh.append((h, c))
                entering = h
            cache.hidden = fresh
            features.append(torch.cat([entering, found.to(h.dtype), embedded.to(h.dtype)], dim=1))
            looks.append(weights)
        y = self.drop(self.out(torch.stack(features, dim=1)).tanh())  # (B, T, d)
        weight = self.embedding.weight[: self.n_out] if self.head is None else self.head.weight
        return F.linear(y, weight), torch.stack(looks, dim=1)

    def _attend(self, h: Tensor, memory: Memory) -> Tensor:
        """Attention weights (B, S) of decoder states h (B, d); 0 for padding."""
        _, keys, real = memory
        scores = self.score((self.query(h)[:, None] + keys).tanh()).squeeze(2)
        return scores.masked_fill(~real, -torch.inf).softmax(1)
