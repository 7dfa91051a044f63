"""Attention for training on CPUs, block by block and without the scores that the causal mask hides.

torch's CPU kernel is not faster in bfloat16 than in float32 and several times slower for short texts. It recomputes all
scores for the gradient and does not support dropout. Here a block of scores stays in the cache between product and
softmax, and weights are stored for the gradient. Matrix products use the type of their arguments, bfloat16 under
autocast.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from zoo.nn.kernels.cpu_dropout import keep_mask, quantize_p

BLOCK_QUERIES = 128  # queries per block
MAX_BLOCK_SCORES = 1 << 20  # maximum scores per block, over all its heads and samples
MAX_STORED_LENGTH = 1024  # keys up to which the weights are stored: memory is quadratic


def cpu_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    drop: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, 1706.03762, eq. 1), (B, H, T, D); differentiable twice.

    Scores are rounded to the type of the arguments before their softmax.

    Args:
        q: queries (B, H, T, D).
        k: keys (B, H, S, D).
        v: values (B, H, S, D).
        mask: True where attention is allowed, for at least one key per query, or a bias added to the scores.
            Its shape is (T, S), or (B or 1, H or 1, T or 1, S).
        causal: attend only to the same and earlier positions, in addition to the mask; requires S = T.
        drop: dropout probability of the weights, below 1.
        scale: factor of the scores; None is D^-1/2.

    Returns:
        (B, H, T, D), with the heads of a position contiguous in memory.
    """
    if mask is not None:
        mask = mask[(None,) * (4 - mask.ndim)]
        mask = q.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else mask.to(q.dtype)
    return CPUAttentionFunction.apply(q, k, v, mask, causal, drop, q.shape[-1] ** -0.5 if scale is None else scale)


class CPUAttentionFunction(torch.autograd.Function):
    """Autograd function of `cpu_attention`. A block has some queries of some samples, with all n = samples x H
    heads.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, drop: float, scale: float
    ) -> Tensor:
        """Attention output (B, H, T, D)."""
        batch, heads, length, _ = q.shape
        y = q.new_empty(batch, length, heads, v.shape[-1]).transpose(1, 2)
        causal_mask = q.new_full((BLOCK_QUERIES, BLOCK_QUERIES), -torch.inf).triu(1) if causal else None
        keep_scale = 1 / (1 - quantize_p(drop))
        weights: list[Tensor] = []
        dropped: list[Tensor] = []
        with torch.autocast("cpu", enabled=False):
            for rows, a, b, seen in plan_blocks(q, k, causal):
                if a == 0:
                    queries, keys, values = merge(q[rows] * scale), merge(k[rows].mT), merge(v[rows] * keep_scale)
                scores = torch.bmm(queries[:, a:b], keys[:, :, :seen])  # (n, b - a, seen)
                if causal_mask is not None:
                    scores[:, :, a:].add_(causal_mask[: b - a, : b - a])
                if mask is not None:
                    scores.unflatten(0, (-1, heads)).add_(slice_mask(mask, rows, a, b, seen))
                weights.append(torch.softmax(scores, -1))
                if drop:
                    dropped.append(weights[-1] * keep_mask(scores, drop))
                kept = dropped[-1] if drop else weights[-1]
                y[rows, :, a:b] = torch.bmm(kept, values[:, :seen]).unflatten(0, (-1, heads))
        ctx.save_for_backward(q, k, v, mask, *weights, *dropped)  # type: ignore[arg-type]  # a mask may be None
        ctx.settings = causal, scale, keep_scale  # type: ignore[attr-defined]
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        """With dropped-out weights L of W and P = L * dy v^T, the gradient of the scores is P - W sum(P)."""
        q, k, v, mask, *saved = ctx.saved_tensors  # type: ignore[attr-defined]
        causal, scale, keep_scale = ctx.settings  # type: ignore[attr-defined]
        heads = q.shape[1]
        plan = plan_blocks(q, k, causal)
        weights, dropped = saved[: len(plan)], saved[-len(plan) :]
        if torch.is_grad_enabled():  # double backward
            indices = [i for i in range(4) if ctx.needs_input_grad[i]]  # type: ignore[attr-defined]
            dropped = dropped if len(saved) > len(plan) else []
            y = differentiable_attention(q, k, v, mask, plan, dropped, causal, scale, keep_scale)
            inputs = [(q, k, v, mask)[i] for i in indices]
            grads = dict(zip(indices, torch.autograd.grad(y, inputs, dy, create_graph=True), strict=True))
            return *(grads.get(i) for i in range(4)), None, None, None
        dq, dk, dv = (x.new_empty(x.shape[0], x.shape[2], heads, x.shape[3]).transpose(1, 2) for x in (q, k, v))
        dmask = torch.zeros_like(mask) if ctx.needs_input_grad[3] else None  # type: ignore[attr-defined]
        with torch.autocast("cpu", enabled=False):
            for (rows, a, b, seen), weight, kept in reversed(list(zip(plan, weights, dropped, strict=True))):
                if last := b == q.shape[2]:  # first in reversed order, and has all keys
                    queries, keys = merge(q[rows].mT), merge(k[rows] * scale)
                    values, grad_y = merge(v[rows].mT * keep_scale), merge(dy[rows].mT)  # (n, D, ...)
                grad_scores = torch.bmm(grad_y[:, :, a:b].mT, values[:, :, :seen]).mul_(kept)  # (n, b - a, seen)
                grad_scores.addcmul_(weight, grad_scores.sum(-1, keepdim=True), value=-1)
                grad_k, grad_v = torch.bmm(queries[:, :, a:b], grad_scores), torch.bmm(grad_y[:, :, a:b], kept)
                if last:
                    sum_grad_k, sum_grad_v = grad_k, grad_v
                else:
                    sum_grad_k[:, :, :seen] += grad_k
                    sum_grad_v[:, :, :seen] += grad_v
                dq[rows, :, a:b] = torch.bmm(grad_scores, keys[:, :seen]).unflatten(0, (-1, heads))
                if dmask is not None:
                    grad_mask = slice_mask(dmask, rows, a, b, seen)
                    grad_mask += grad_scores.unflatten(0, (-1, heads)).sum_to_size(grad_mask.shape)
                if a == 0:
                    dk[rows] = (sum_grad_k * scale).mT.unflatten(0, (-1, heads))
                    dv[rows] = (sum_grad_v * keep_scale).mT.unflatten(0, (-1, heads))
        return dq, dk, dv, dmask, None, None, None


def plan_blocks(q: Tensor, k: Tensor, causal: bool) -> list[tuple[slice, int, int, int]]:
    """Blocks (samples, first query, last query, number of keys), with as many samples as fit in the cache."""
    batch, heads, length, _ = q.shape
    size = max(1, MAX_BLOCK_SCORES // (heads * min(length, BLOCK_QUERIES) * k.shape[2]))
    ends = [(a, min(a + BLOCK_QUERIES, length)) for a in range(0, length, BLOCK_QUERIES)]
    return [(slice(i, i + size), a, b, b if causal else k.shape[2]) for i in range(0, batch, size) for a, b in ends]


def differentiable_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    plan: list[tuple[slice, int, int, int]],
    dropped: Sequence[Tensor],
    causal: bool,
    scale: float,
    keep_scale: float,
) -> Tensor:
    """The same output (B, H, T, D) by twice-differentiable operations."""
    scores = (q * scale) @ k.mT
    if mask is not None:
        scores = scores + mask
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    weights = scores.softmax(-1)
    if dropped:
        kept = torch.zeros_like(weights)
        for (rows, a, b, seen), block in zip(plan, dropped, strict=True):
            kept[rows, :, a:b, :seen] = (block != 0).unflatten(0, (-1, q.shape[1])).to(kept.dtype)
        weights = weights * kept.detach()
    return weights @ (v * keep_scale)


def merge(x: Tensor) -> Tensor:
    """(B, H, ...) -> (B H, ...), contiguous."""
    return x.flatten(0, 1).contiguous()


def slice_mask(mask: Tensor, rows: slice, a: int, b: int, seen: int) -> Tensor:
    """The mask of some samples, queries and keys."""
    mask = mask[rows] if len(mask) > 1 else mask
    return mask[:, :, a:b, :seen] if mask.shape[2] > 1 else mask[..., :seen]
