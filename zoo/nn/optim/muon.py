"""Muon for matrices and AdamW for everything else, behind one optimizer."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from zoo.core.registry import register
from zoo.core.signature import Betas, Positive
from zoo.nn.optim.base import Groups, OptimizerConfig, decayed_groups

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the quintic of Jordan et al. 2024, steepest at zero


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it fast, else float32."""
    if device.type == "cpu":
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def orthogonalize(matrices: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Nearly the orthogonal factor U V^T of each matrix: singular values come to lie between about 0.7 and 1.2.

    Args:
        matrices: (N, A, B).
        steps: Newton-Schulz iterations.
        dtype: to compute in; None is `fast_dtype`.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype or fast_dtype(matrices.device))
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # spectral norm at most 1
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), and AdamW.

    `torch.optim.Muon` computes the same update but takes matrices only, always in bfloat16, which many CPUs
    have to emulate. Here matrices of one shape are orthogonalised together, and one optimizer means one
    schedule and one state in the checkpoint.

    Args:
        matrices: weights of hidden layers, or groups of them; kernels of convolutions count as matrices (out, rest).
        others: embeddings, heads, gains and biases, which go to AdamW; or groups of them.
        lr: of the matrices, in units of the spectral norm.
        adamw_lr: of the others.
        weight_decay: decoupled; reaches all matrices, and no gains or biases.
        momentum: of the matrices (Nesterov).
        betas: of AdamW.
    """

    def __init__(
        self,
        matrices: Iterable[Any],
        others: Iterable[Any],
        *,
        lr: float = 0.02,
        adamw_lr: float = 3e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
    ) -> None:
        matrices, others = list(matrices), list(others)
        if not (matrices and isinstance(matrices[0], dict)):
            matrices = [{"params": matrices}]
        if not (others and isinstance(others[0], dict)):
            others = decayed_groups(others, weight_decay)
        groups = [{"muon": True, "lr": lr, "weight_decay": weight_decay, **group} for group in matrices]
        groups += [{"lr": adamw_lr, "weight_decay": weight_decay, **group} for group in others]
        defaults = {"muon": False, "momentum": momentum, "betas": tuple(betas), "eps": 1e-8}
        super().__init__([g for g in groups if g["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of everything that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            (self._muon if group["muon"] else self._adamw)(group)
        return loss

    def _muon(self, group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for p in group["params"]:
            if p.grad is not None:
                alike[p.shape].append(p)
        beta = group["momentum"]
        for shape, params in alike.items():
            grads = [p.grad for p in params if p.grad is not None]
            for p in params:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum"] for p in params]
            torch._foreach_lerp_(buffers, grads, 1 - beta)
            mixed = torch.stack(torch._foreach_lerp(grads, buffers, beta))  # (N, A, ...)
            updates = orthogonalize(mixed.flatten(2)).view(mixed.shape)
            # Scaled so that outputs change by the same RMS, whatever the shape.
            size = group["lr"] * max(1.0, shape[0] / shape[1:].numel()) ** 0.5
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(params, list(updates.unbind()), alpha=-size)

    def _adamw(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        for p in params:
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros((), device=p.device)  # where torch's fused AdamW reads it
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            elif state["step"].device != p.device:  # from a checkpoint of an earlier version
                state["step"] = state["step"].to(p.device)
        if not params:
            return
        states = [self.state[p] for p in params]
        adamw(
            params,
            [p.grad for p in params if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


@register("optimizer", "muon")
@dataclass(kw_only=True)
class MuonConfig(OptimizerConfig):
    """Muon: orthogonalised momentum for matrices of hidden layers, AdamW for everything else.

    Args:
        lr: of AdamW.
        muon_lr: of the matrices, in units of the spectral norm.
        betas: of AdamW.
    """

    whole_matrices: ClassVar[bool] = True

    muon_lr: Positive = 0.02
    betas: Betas = (0.9, 0.95)

    def build(self, groups: Groups, *, hidden: Collection[Tensor] = (), fused: bool = False) -> torch.optim.Optimizer:
        """Both behind one optimizer."""
        held = {id(p) for p in hidden if p.ndim >= 2}
        matrices, others = [], []
        for group in groups:
            mine = [p for p in group["params"] if id(p) in held]
            lr = self.muon_lr * (group.get("lr", self.lr) / self.lr)
            matrices.append({**group, "params": mine, "lr": lr})
            others.append({**group, "params": [p for p in group["params"] if id(p) not in held]})
        beta1, beta2 = self.betas
        return Muon(matrices, others, adamw_lr=self.lr, weight_decay=self.weight_decay, betas=(beta1, beta2))


def hidden_layers(network: nn.Module) -> list[nn.Module]:
    """Return the modules whose matrices Muon trains: `network.blocks`, or all children but embeddings and `head`."""
    if isinstance(blocks := getattr(network, "blocks", None), nn.Module):
        return [blocks]
    children = network.named_children()
    return [child for name, child in children if name != "head" and not isinstance(child, nn.Embedding)]
