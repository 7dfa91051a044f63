"""WaveNet: dilated causal convolutions over tokens."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import PositiveInt

State = dict[str, Tensor]  # "given" (B, L, 2 D), and of each layer the last inputs (B, D, dilation)


@register("backbone", "wavenet")
class WaveNet(nn.Module):
    """WaveNet: dilated causal convolutions (van den Oord et al. 2016, arXiv:1609.03499).

    Tokens (B, T) become logits of the next token (B, T, n_out). A layer reads its inputs at t and t - dilation:
    z = tanh(f) sigmoid(g), x + W z. The head reads the sum of V z over the layers (eq. 2 and figure 4). A first token
    that cannot be predicted, such as a class, is added to f and g of every layer at all times (eq. 3).

    Args:
        n_in: tokens that can be read.
        n_out: tokens that can be predicted, the first of the n_in.
        context: tokens of a training window, which the state does not depend on.
        d_model: channels.
        n_layers: of convolutions.
        cycle: dilations are 1, 2, 4 ... 2^(cycle - 1), and then from 1 again.
    """

    context = math.inf

    def __init__(
        self,
        n_in: int,
        n_out: int,
        context: int,
        *,
        d_model: PositiveInt = 64,
        n_layers: PositiveInt = 10,
        cycle: PositiveInt = 10,
    ) -> None:
        super().__init__()
        self.n_out, self.dilations = n_out, [2 ** (i % cycle) for i in range(n_layers)]
        self.embedding = nn.Embedding(n_in, d_model)
        self.given = nn.Embedding(n_in - n_out, n_layers * 2 * d_model) if n_in > n_out else None
        self.gates = nn.ModuleList(nn.Conv1d(d_model, 2 * d_model, 2, dilation=d) for d in self.dilations)
        self.skips = nn.ModuleList(nn.Conv1d(d_model, d_model, 1) for _ in self.dilations)
        self.residuals = nn.ModuleList(nn.Conv1d(d_model, d_model, 1) for _ in self.dilations[1:])
        self.mix = nn.Conv1d(d_model, d_model, 1)
        self.head = nn.Conv1d(d_model, n_out, 1)
        if self.given is not None:
            nn.init.normal_(self.given.weight, std=0.1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # it has one

    @property
    def receptive_field(self) -> int:
        """Tokens that a prediction depends on, without the first one where that is a condition."""
        return 1 + sum(self.dilations)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, n_out)."""
        return self.run(tokens, self.condition(tokens[:, 0]))[0]

    def condition(self, first: Tensor) -> Tensor:
        """Terms that first tokens (B,) add to the gates, (B, L, 2 D); zero for those that can be predicted."""
        size = (len(self.dilations), 2 * self.mix.in_channels)
        if self.given is None:
            return self.embedding.weight.new_zeros(len(first), *size)
        found = self.given((first - self.n_out).clamp(min=0)).unflatten(1, size)
        return torch.where((first >= self.n_out)[:, None, None], found, 0)

    def run(self, tokens: Tensor, given: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (B, T, n_out), and the inputs of each layer after zeros, (B, D, dilation + T)."""
        x, read = self.embedding(tokens).transpose(1, 2), []
        total = torch.zeros_like(x)
        for layer, dilation in enumerate(self.dilations):
            read.append(F.pad(x, (dilation, 0)))
            x, total = self.layer(layer, self.gates[layer](read[-1]), given, x, total)
        return self.logits(total), read

    def layer(self, number: int, gates: Tensor, given: Tensor, x: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of the next layer and the sum so far (B, D, T), from convolved ones (B, 2 D, T)."""
        f, g = (gates + given[:, number, :, None]).chunk(2, dim=1)
        z = f.tanh() * g.sigmoid()
        if number < len(self.residuals):
            x = x + self.residuals[number](z)
        return x, total + self.skips[number](z)

    def logits(self, total: Tensor) -> Tensor:
        """(B, D, T) -> (B, T, n_out)."""
        hidden = self.mix((total / math.sqrt(len(self.dilations))).relu()).relu()
        found: Tensor = self.head(hidden).transpose(1, 2)
        return found

    # -- IncrementalDecoder

    def prefill(self, tokens: Tensor, padding: Tensor | None = None) -> tuple[Tensor, State]:
        """Read prompts (B, T), whose rows begin with `padding` (B,) meaningless tokens: next logits, and a state."""
        length = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        if padding is not None:  # moves to the end, where nothing depends on it
            place = torch.arange(tokens.shape[1], device=tokens.device)
            tokens, length = tokens.gather(1, (place + padding[:, None]) % tokens.shape[1]), length - padding
        given = self.condition(tokens[:, 0])
        logits, read = self.run(tokens, given)
        state = {"given": given}
        for number, (inputs, dilation) in enumerate(zip(read, self.dilations, strict=True)):
            index = length[:, None] + torch.arange(dilation, device=tokens.device)  # the last inputs
            state[str(number)] = inputs.gather(2, index[:, None].expand(-1, inputs.shape[1], -1))
        return logits[torch.arange(len(tokens), device=tokens.device), length - 1], state

    def step(self, tokens: Tensor, state: State) -> Tensor:
        """Read one more token per row (B,): next logits (B, n_out)."""
        x = self.embedding(tokens)[:, :, None]
        total = torch.zeros_like(x)
        for number in range(len(self.dilations)):
            queue, gate = state[str(number)], self.gates[number]
            pair = torch.cat([queue[:, :, :1], x], 2)
            state[str(number)] = torch.cat([queue[:, :, 1:], x], 2)
            assert isinstance(gate, nn.Conv1d)
            x, total = self.layer(number, F.conv1d(pair, gate.weight, gate.bias), state["given"], x, total)
        return self.logits(total)[:, 0]

    def reorder(self, state: State, rows: Tensor) -> None:
        """Row b of the state becomes the former row `rows[b]`."""
        state.update({name: part[rows] for name, part in state.items()})

    def merge(self, state: State, other: State) -> State:
        """State of the rows of both."""
        return {name: torch.cat([part, other[name]]) for name, part in state.items()}
