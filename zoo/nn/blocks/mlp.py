"""Feed-forward networks of transformer blocks: one MLP, or a mixture of several."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.nn.blocks.transformer_config import MLPKind, TransformerConfig

GATED = ("swiglu", "geglu")


class MLP(nn.Module):
    """Feed-forward network d -> hidden -> d.

    Activations: GELU exact or by tanh, SiLU, ReLU, squared ReLU (So et al. 2021, 2109.08668). Gated: SwiGLU, and GEGLU
    by tanh as in T5 (Shazeer 2020, 2002.05202).
    """

    def __init__(self, d_model: int, kind: MLPKind, d_ff: int = 0, bias: bool = False) -> None:
        super().__init__()
        self.kind = kind
        # Gated MLPs have three matrices: two thirds of the width keep the number of parameters.
        hidden = d_ff or (8 * math.ceil(d_model / 3) if kind in GATED else 4 * d_model)
        self.gate = nn.Linear(d_model, hidden, bias=bias) if kind in GATED else None
        self.up = nn.Linear(d_model, hidden, bias=bias)
        self.out = nn.Linear(hidden, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d)."""
        h = self.up(x)
        if self.gate is not None:
            gate = self.gate(x)
            h = (F.silu(gate) if self.kind == "swiglu" else F.gelu(gate, approximate="tanh")) * h
        elif self.kind in ("relu", "relu_squared"):
            h = F.relu(h) if self.kind == "relu" else F.relu(h).square()
        elif self.kind == "silu":
            h = F.silu(h)
        else:
            h = F.gelu(h, approximate="tanh" if self.kind == "gelu_tanh" else "none")
        return self.out(h)


class MixtureOfExperts(nn.Module):
    """Sum of the `n_active` likeliest MLPs of each token, weighted by a router (Jiang et al. 2024, 2401.04088).

    The weights are the softmax of the chosen router logits: sum_e softmax(top_k(x W))_e MLP_e(x).

    In training, `balance` measures the use of the n experts by the last tokens: n sum_e f_e p_e. There f_e is the share
    of the choices, and p_e the mean probability (Fedus et al. 2021, 2101.03961, equation 4). It is 1 for equal use.

    Args:
        config: sizes of the experts.
    """

    balance: Tensor | None = None  # has a gradient, through the probabilities

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.n_active = config.n_active_experts
        self.router = nn.Linear(config.d_model, config.n_experts, bias=False)
        self.experts = nn.ModuleList(
            MLP(config.d_model, config.mlp, config.d_ff, config.bias) for _ in range(config.n_experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        tokens = x.flatten(0, -2)  # (N, d)
        scores = self.router(tokens).float()  # (N, n_experts)
        best, chosen = scores.topk(self.n_active, dim=-1)  # (N, n_active)
        weights = best.softmax(-1).to(x.dtype)
        if self.training and not torch.compiler.is_exporting():
            share = F.one_hot(chosen, len(self.experts)).float().mean((0, 1))  # (n_experts,)
            self.balance = len(self.experts) * (share * scores.softmax(-1).mean(0)).sum()
        y = torch.zeros_like(tokens)
        for i, expert in enumerate(self.experts):
            mine = chosen == i
            weight = (weights * mine).sum(-1, keepdim=True)  # (N, 1)
            if torch.compiler.is_compiling():  # which needs shapes that do not depend on values
                y = y + weight * expert(tokens)
            # With several processes, an idle expert has a gradient of zero: all of them exchange the same gradients.
            elif len(rows := mine.any(-1).nonzero()[:, 0]) or (self.training and torch.distributed.is_initialized()):
                y = y.index_add(0, rows, weight[rows] * expert(tokens[rows]))
        return y.view_as(x)


def expert_balance(network: nn.Module) -> Tensor | None:
    """Mean `balance` of a network's mixtures of experts in its last training batch; None without one."""
    found = [m.balance for m in network.modules() if isinstance(m, MixtureOfExperts) and m.balance is not None]
    return torch.stack(found).mean() if found else None


def make_mlp(config: TransformerConfig) -> nn.Module:
    """The feed-forward network of a block."""
    if config.n_experts:
        return MixtureOfExperts(config)
    return MLP(config.d_model, config.mlp, config.d_ff, config.bias)
