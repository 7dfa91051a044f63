"""LSTM encoder-decoder with additive attention (Bahdanau et al. 2014, arXiv:1409.0473)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ZooError


@dataclass
class Memory:
    """Encoded source: features (B, S, d), attention keys (B, S, d), and which positions are tokens (B, S)."""

    features: Tensor
    keys: Tensor
    real: Tensor

    def select(self, rows: Tensor) -> "Memory":
        """Select rows of the batch."""
        return Memory(*(part.index_select(0, rows) for part in (self.features, self.keys, self.real)))


Hidden = list[tuple[Tensor, Tensor]]  # output and cell (B, d) of each layer


class AttentionLSTM(nn.Module):
    """Source (B, S) and target (B, T), negative for padding -> logits (B, T, n_tokens).

    The encoder is bidirectional. The decoder's state s attends to encoder states h by v tanh(W s + U h). The weighted
    mean and the last token are the input of the next state. Padding is masked.

    Args:
        n_tokens: vocabulary size.
        context: most tokens of a generated target.
        begin: token before the target.
        d_model: width, an even number: of embeddings, of both directions together, and of the decoder.
        n_layers: of each direction of the encoder, and of the decoder.
        dropout: of embeddings, between layers, and before the head.
        tie_weights: share the embedding with the head.

    Raises:
        ZooError: an odd width.
    """

    def __init__(
        self,
        n_tokens: int,
        context: int,
        *,
        begin: int,
        d_model: int,
        n_layers: int,
        dropout: float,
        tie_weights: bool,
    ) -> None:
        super().__init__()
        if d_model % 2:
            raise ZooError(f"d_model={d_model}: the encoder has two directions. Choose an even number.")
        self.context, self.begin, d = context, begin, d_model
        self.embedding = nn.Embedding(n_tokens, d)
        nn.init.normal_(self.embedding.weight, std=d**-0.5)
        readers = [nn.ModuleList(nn.LSTM(d, d // 2, batch_first=True) for _ in range(n_layers)) for _ in range(2)]
        self.forwards, self.backwards = readers
        self.query, self.key = nn.Linear(d, d, bias=False), nn.Linear(d, d)
        self.score = nn.Linear(d, 1, bias=False)
        self.start = nn.Linear(d // 2, n_layers * d)
        self.cells = nn.ModuleList(nn.LSTMCell(d if layer else 2 * d, d) for layer in range(n_layers))
        self.out = nn.Linear(3 * d, d)
        self.drop = nn.Dropout(dropout)
        self.head = None if tie_weights else nn.Linear(d, n_tokens, bias=False)

    def encode(self, source: Tensor) -> Memory:
        """Encode a source (B, S)."""
        real = source >= 0
        place = torch.arange(source.shape[1], device=source.device)
        length = real.sum(1, keepdim=True)
        mirror = torch.where(place < length, length - 1 - place, place)[..., None]  # reverses the tokens of each row
        x = self.drop(self.embedding(source.clamp(min=0)))
        for layer, (forwards, backwards) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            x = self.drop(x) if layer else x
            back = backwards(x.gather(1, mirror.expand_as(x)))[0]
            x = torch.cat([forwards(x)[0], back.gather(1, mirror.expand_as(back))], dim=2)  # (B, S, d)
        return Memory(x, self.key(x), real)

    def initial_state(self, memory: Memory) -> Hidden:
        """Initial state of the decoder, from the backward encoder at the first token."""
        last = memory.features[:, 0].chunk(2, dim=1)[1]
        outputs = self.start(last).tanh().chunk(len(self.cells), dim=1)
        return [(h, torch.zeros_like(h)) for h in outputs]

    def attention_weights(self, h: Tensor, memory: Memory) -> Tensor:
        """Attention weights (B, S) of decoder states h (B, d); 0 for padding."""
        scores = self.score((self.query(h)[:, None] + memory.keys).tanh()).squeeze(2)
        return scores.masked_fill(~memory.real, -torch.inf).softmax(1)

    def run(
        self, tokens: Tensor, memory: Memory, hidden: Hidden, padding: Tensor | None = None
    ) -> tuple[Tensor, Hidden, Tensor]:
        """Decode target tokens (B, T) one by one; the first `padding` (B,) tokens of each row are skipped.

        Returns:
            Logits (B, T, n_tokens), the state after the last token, and attention weights (B, T, S).
        """
        x = self.drop(self.embedding(tokens))
        features: list[Tensor] = []
        looks: list[Tensor] = []
        for t, embedded in enumerate(x.unbind(1)):
            weights = self.attention_weights(hidden[-1][0], memory)
            found = torch.bmm(weights.to(memory.features.dtype)[:, None], memory.features)[:, 0]  # (B, d)
            entering, fresh = torch.cat([embedded, found.to(embedded.dtype)], dim=1), list[tuple[Tensor, Tensor]]()
            for layer, (cell, state) in enumerate(zip(self.cells, hidden, strict=True)):
                h, c = cell(self.drop(entering) if layer else entering, state)
                if padding is not None:
                    passed = (t < padding)[:, None]
                    h, c = torch.where(passed, state[0], h), torch.where(passed, state[1], c)
                fresh.append((h, c))
                entering = h
            hidden = fresh
            features.append(torch.cat([hidden[-1][0], found.to(h.dtype), embedded.to(h.dtype)], dim=1))
            looks.append(weights)
        y = self.drop(self.out(torch.stack(features, dim=1)).tanh())
        weight = self.embedding.weight if self.head is None else self.head.weight
        return F.linear(y, weight), hidden, torch.stack(looks, dim=1)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits of every target token (B, T, n_tokens), given the source and the targets before it."""
        return self.forward_with_attention(source, target)[0]

    def forward_with_attention(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, T, n_tokens) and attention weights (B, T, S)."""
        memory = self.encode(source)
        read = F.pad(target[:, :-1].clamp(min=0), (1, 0), value=self.begin)
        logits, _, looks = self.run(read, memory, self.initial_state(memory))
        return logits, looks

    def after(self, source: Tensor) -> "ConditionedDecoder":
        """Decoder of the sources (B, S), an `IncrementalDecoder` of `zoo.nn.samplers.autoregressive`."""
        return ConditionedDecoder(self, self.encode(source))


@dataclass
class State:
    """State of the decoder: hidden states, and the encoded source."""

    hidden: Hidden
    memory: Memory


class ConditionedDecoder:
    """`IncrementalDecoder` of encoded sources: row b continues source b, or all rows continue a single source.

    Args:
        net: encoder-decoder.
        memory: encoded sources.
    """

    def __init__(self, net: AttentionLSTM, memory: Memory) -> None:
        self.net, self.memory, self.context = net, memory, net.context

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, State]:
        """Read beginnings of targets (B, T); the first `padding` (B,) tokens of each row are skipped."""
        memory = self.memory
        if len(memory.real) == 1:
            memory = memory.select(torch.zeros(len(tokens), dtype=torch.long, device=tokens.device))
        state = State(self.net.initial_state(memory), memory)
        return self._read(tokens, state, padding), state

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """Read one more token per row (B,): next logits (B, V)."""
        return self._read(tokens[:, None], state)

    def _read(self, tokens: Tensor, state: State, padding: Tensor | None = None) -> Tensor:
        logits, state.hidden, _ = self.net.run(tokens, state.memory, state.hidden, padding)
        return logits[:, -1]

    def reorder(self, state: State, rows: Tensor) -> None:
        """Replace row b of the state by row `rows[b]`."""
        state.hidden = [_select(layer, rows) for layer in state.hidden]
        state.memory = state.memory.select(rows)


def _select(layer: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    return layer[0].index_select(0, rows), layer[1].index_select(0, rows)
