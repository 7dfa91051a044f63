"""Mamba 2: a state space in place of attention."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.core.signature import DropoutRate, Positive, PositiveInt
from zoo.nn.blocks.recurrent_decoder import RecurrentDecoder, State
from zoo.nn.blocks.state_space import state_space

RATES = (1.0, 16.0)  # initial rates of decay
STEPS = (1e-3, 1e-1)  # initial sizes of steps


class GatedNorm(nn.Module):
    """x silu(gate), divided by its RMS within each group of channels, with gains."""

    def __init__(self, width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """(B, T, E), (B, T, E) -> (B, T, E)."""
        x = (x * F.silu(gate)).unflatten(-1, (self.groups, -1))
        return F.rms_norm(x, x.shape[-1:], eps=self.eps).flatten(-2) * self.weight


class StateSpaceMixer(nn.Module):
    """A convolution over the last tokens, a state space of several heads, and a gate (Dao & Gu 2024, figure 6).

    Args:
        d_model: width of inputs and outputs.
        d_inner: width of the state space's inputs, H P.
        heads: H.
        d_state: N, so that each head has a state of P x N.
        groups: of heads that share input and output directions, G.
        kernel: tokens that the convolution reads.
        eps: of the norm.
        bias: of the linear maps.
    """

    def __init__(
        self, d_model: int, d_inner: int, heads: int, d_state: int, groups: int, kernel: int, eps: float, bias: bool
    ) -> None:
        super().__init__()
        self.heads, self.groups, self.kernel = heads, groups, kernel
        self.widths = [d_inner, groups * d_state, groups * d_state]  # of x, b and c
        self.enter = nn.Linear(d_model, d_inner + sum(self.widths) + heads, bias=bias)  # gate, (x, b, c), steps
        self.conv = nn.Conv1d(sum(self.widths), sum(self.widths), kernel, groups=sum(self.widths))
        self.step_bias = nn.Parameter(torch.empty(heads))
        self.log_rate = nn.Parameter(torch.empty(heads))
        self.skip = nn.Parameter(torch.ones(heads))
        self.norm = GatedNorm(d_inner, groups, eps)
        self.leave = nn.Linear(d_inner, d_model, bias=bias)
        with torch.no_grad():
            self.log_rate.uniform_(*RATES).log_()
            steps = torch.empty(heads).uniform_(*map(math.log, STEPS)).exp()
            self.step_bias.copy_(steps + (-torch.expm1(-steps)).log())  # the inverse of softplus

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, T, D) -> (B, T, D), and the state.

        Args:
            x: inputs.
            state: last inputs of the convolution (B, E, kernel - 1), and state of the heads (B, H, P, N).
            lengths: number of tokens of each row without padding at its end (B,), on the device.
        """
        gate, mixed, step = self.enter(x).split([self.widths[0], sum(self.widths), self.heads], dim=-1)
        step = F.softplus(step + self.step_bias)
        mixed = mixed.mT  # (B, E, T)
        window = F.pad(mixed, (self.kernel - 1, 0)) if state is None else torch.cat([state[0].to(mixed), mixed], 2)
        end = x.new_full((len(x),), x.shape[1], dtype=torch.int64) if lengths is None else lengths
        if lengths is not None:
            real = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
            step = step * real[:, :, None]
        last = end[:, None] + torch.arange(self.kernel - 1, device=x.device)  # of the window
        inputs = window.gather(2, last[:, None].expand(-1, window.shape[1], -1))

        h, b, c = F.silu(self.conv(window)).mT.split(self.widths, dim=-1)
        h = h.unflatten(-1, (self.heads, -1))  # (B, T, H, P)
        b, c = (part.unflatten(-1, (self.groups, -1)) for part in (b, c))  # (B, T, G, N)
        with torch.autocast(x.device.type, enabled=False):
            y, after = state_space(h, step, -self.log_rate.exp(), b, c, None if state is None else state[1])
        y = (y + self.skip[:, None] * h).flatten(-2).to(gate.dtype)
        return self.leave(self.norm(y, gate)), (inputs, after)


class Mamba2Block(nn.Module):
    """x + mixer(norm(x))."""

    def __init__(self, mixer: StateSpaceMixer, d_model: int, eps: float) -> None:
        super().__init__()
        self.norm, self.mixer = nn.RMSNorm(d_model, eps), mixer


@register("backbone", "mamba2")
class Mamba2(RecurrentDecoder):
    """Mamba 2: state spaces whose steps, inputs and outputs depend on the token (Dao & Gu 2024, 2405.21060).

    Training evaluates all tokens of a window at once. Generation needs a state of a fixed size. For each layer it has
    the last inputs of a convolution (B, E, kernel - 1), and the state of the heads (B, H, P, N).

    Linear maps are normal with 1 / sqrt(fan-in), the last one of a layer divided by sqrt(n_layers) more. Rates of decay
    are uniform in 1 to 16, and steps log-uniform in 0.001 to 0.1.

    Args:
        n_in: tokens that can be read.
        n_out: tokens that can be predicted, the first of the n_in.
        context: tokens of a training window, which the size of the state does not depend on.
        d_model: width of embeddings and layers.
        n_layers: layers.
        d_state: values per channel of a head's state.
        d_head: channels of a head.
        expand: width of the state space's inputs, in units of d_model.
        groups: of heads that share input and output directions.
        kernel: tokens that the convolution reads.
        norm_eps: added to the mean square in norms.
        bias: of the linear maps of a layer.
        dropout: after each layer.
        tie_weights: the head is the embedding; otherwise it is initialised to zero.

    Raises:
        ConfigError: expand * d_model is not a number of heads, or heads do not divide into the groups.
    """

    row_dim = 0

    def __init__(
        self,
        n_in: int,
        n_out: int,
        context: int,
        *,
        d_model: PositiveInt = 128,
        n_layers: PositiveInt = 4,
        d_state: PositiveInt = 32,
        d_head: PositiveInt = 32,
        expand: PositiveInt = 2,
        groups: PositiveInt = 1,
        kernel: PositiveInt = 4,
        norm_eps: Positive = 1e-5,
        bias: bool = False,
        dropout: DropoutRate = 0.0,
        tie_weights: bool = False,
    ) -> None:
        super().__init__()
        heads, rest = divmod(expand * d_model, d_head)
        if rest:
            raise ConfigError(
                f"d_head={d_head}: does not divide {expand * d_model}, expand * d_model. Choose a divisor."
            )
        if heads % groups:
            raise ConfigError(f"groups={groups}: {heads} heads do not divide into them. Choose a divisor of {heads}.")
        self.n_out = n_out
        self.embedding = nn.Embedding(n_in, d_model)
        self.blocks = nn.ModuleList(
            Mamba2Block(
                StateSpaceMixer(d_model, expand * d_model, heads, d_state, groups, kernel, norm_eps, bias),
                d_model,
                norm_eps,
            )
            for _ in range(n_layers)
        )
        self.norm = nn.RMSNorm(d_model, norm_eps)
        self.drop = nn.Dropout(dropout)
        self.head = None if tie_weights else nn.Linear(d_model, n_out, bias=False)
        self.reset()

    def reset(self) -> None:
        """Initialise embeddings and linear maps."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, StateSpaceMixer):
                nn.init.normal_(module.enter.weight, std=module.enter.in_features**-0.5)
                nn.init.normal_(module.leave.weight, std=(module.leave.in_features * len(self.blocks)) ** -0.5)
                for linear in (module.enter, module.leave):
                    if linear.bias is not None:
                        nn.init.zeros_(linear.bias)
        if self.head is not None:
            nn.init.zeros_(self.head.weight)

    def layer_states(self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None) -> list[Tensor]:
        """States that the layers read, embeddings first, and that the head reads: n_layers + 1 tensors (B, T, D)."""
        x = self.embedding(tokens)
        states, after = [], State()
        rows = None if lengths is None else lengths.to(x.device)
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Mamba2Block)
            states.append(block.norm(x))
            before = (state[2 * layer], state[2 * layer + 1]) if state else None
            h, new = block.mixer(states[-1], before, rows)
            x = x + self.drop(h)
            after += new
        if state is not None:
            state[:] = after
        return [*states, self.norm(x)]
