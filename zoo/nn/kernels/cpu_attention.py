"""Attention for training on a processor: block by block, in the cache, without what causality hides.

torch's own kernel there is no faster in bfloat16 than in single precision, for short texts several times slower,
computes all scores once more for the gradient, and knows no dropout. Here a block of scores stays in the processor's
cache from its product to its softmax, weights are kept for the gradient, and matrices are multiplied in the type they
have: bfloat16 where autocast says so.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from zoo.nn.kernels.cpu_dropout import keep_mask, quantize_p

ROWS = 128  # queries of a block
SCORES = 1 << 20  # of a block at most, for all heads and samples in it
LONGEST = 1024  # positions up to which keeping the weights, which takes memory for their square, is worth it


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
    """Softmax of scaled products of queries and keys, by which values are averaged (Vaswani et al. 2017, eq. 1).

    Scores are rounded to the type of the arguments before their softmax.

    Args:
        q: queries (B, H, T, D).
        k: keys (B, H, S, D).
        v: values (B, H, S, D).
        mask: (T, S), or (B or 1, H or 1, T or 1, S): True where a query may look, at one key at least, or what is
            added to its scores.
        causal: does each query see none but the keys up to its own place, whatever a mask says? Then S is T.
        drop: probability with which a weight is dropped, below 1.
        scale: of the products; None is D^-1/2.

    Returns:
        (B, H, T, D), the heads of a position side by side in memory.
    """
    if mask is not None:
        mask = mask[(None,) * (4 - mask.ndim)]
        mask = q.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else mask.to(q.dtype)
    return CPUAttentionFunction.apply(q, k, v, mask, causal, drop, q.shape[-1] ** -0.5 if scale is None else scale)


class CPUAttentionFunction(torch.autograd.Function):
    """See `attend`. A block is some queries of some samples with all their heads: n of these in all."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, drop: float, scale: float
    ) -> Tensor:
        """(B, H, T, D)."""
        batch, heads, length, _ = q.shape
        y = q.new_empty(batch, length, heads, v.shape[-1]).transpose(1, 2)
        hidden = q.new_full((ROWS, ROWS), -torch.inf).triu(1) if causal else None  # of the block on the diagonal
        rest = 1 / (1 - quantize_p(drop))
        weights: list[Tensor] = []
        dropped: list[Tensor] = []
        with torch.autocast("cpu", enabled=False):
            for rows, a, b, seen in blocks(q, k, causal):
                if a == 0:
                    queries, keys, values = flat(q[rows] * scale), flat(k[rows].mT), flat(v[rows] * rest)
                scores = torch.bmm(queries[:, a:b], keys[:, :, :seen])  # (n, b - a, seen)
                if hidden is not None:
                    scores[:, :, a:].add_(hidden[: b - a, : b - a])
                if mask is not None:
                    scores.unflatten(0, (-1, heads)).add_(part(mask, rows, a, b, seen))
                weights.append(torch.softmax(scores, -1))
                if drop:
                    dropped.append(weights[-1] * keep_mask(scores, drop))
                left = dropped[-1] if drop else weights[-1]
                y[rows, :, a:b] = torch.bmm(left, values[:, :seen]).unflatten(0, (-1, heads))
        ctx.save_for_backward(q, k, v, mask, *weights, *dropped)  # type: ignore[arg-type]  # a mask may be None
        ctx.settings = causal, scale, rest  # type: ignore[attr-defined]
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        """With L what is left of the weights W, P = L * dy v^T, the gradient of the scores is P - W sum(P)."""
        q, k, v, mask, *saved = ctx.saved_tensors  # type: ignore[attr-defined]
        causal, scale, rest = ctx.settings  # type: ignore[attr-defined]
        heads = q.shape[1]
        cut = blocks(q, k, causal)
        weights, dropped = saved[: len(cut)], saved[-len(cut) :]
        if torch.is_grad_enabled():  # somebody wants the gradient's gradient
            wanted = [i for i in range(4) if ctx.needs_input_grad[i]]  # type: ignore[attr-defined]
            y = whole(q, k, v, mask, cut, dropped if len(saved) > len(cut) else [], causal, scale, rest)
            inputs = [(q, k, v, mask)[i] for i in wanted]
            found = dict(zip(wanted, torch.autograd.grad(y, inputs, dy, create_graph=True), strict=True))
            return *(found.get(i) for i in range(4)), None, None, None
        dq, dk, dv = (x.new_empty(x.shape[0], x.shape[2], heads, x.shape[3]).transpose(1, 2) for x in (q, k, v))
        dmask = torch.zeros_like(mask) if ctx.needs_input_grad[3] else None  # type: ignore[attr-defined]
        with torch.autocast("cpu", enabled=False):
            for (rows, a, b, seen), weight, left in reversed(list(zip(cut, weights, dropped, strict=True))):
                if last := b == q.shape[2]:  # comes first, and sees all keys
                    queries, keys = flat(q[rows].mT), flat(k[rows] * scale)
                    values, slope = flat(v[rows].mT * rest), flat(dy[rows].mT)  # (n, D, ...)
                inner = torch.bmm(slope[:, :, a:b].mT, values[:, :, :seen]).mul_(left)  # (n, b - a, seen)
                inner.addcmul_(weight, inner.sum(-1, keepdim=True), value=-1)
                of_keys, of_values = torch.bmm(queries[:, :, a:b], inner), torch.bmm(slope[:, :, a:b], left)
                if last:
                    all_keys, all_values = of_keys, of_values
                else:
                    all_keys[:, :, :seen] += of_keys
                    all_values[:, :, :seen] += of_values
                dq[rows, :, a:b] = torch.bmm(inner, keys[:, :seen]).unflatten(0, (-1, heads))
                if dmask is not None:
                    here = part(dmask, rows, a, b, seen)
                    here += inner.unflatten(0, (-1, heads)).sum_to_size(here.shape)
                if a == 0:
                    dk[rows] = (all_keys * scale).mT.unflatten(0, (-1, heads))
                    dv[rows] = (all_values * rest).mT.unflatten(0, (-1, heads))
        return dq, dk, dv, dmask, None, None, None


def blocks(q: Tensor, k: Tensor, causal: bool) -> list[tuple[slice, int, int, int]]:
    """Samples, the first query and the last, and how many keys these see; as many samples as the cache can hold."""
    batch, heads, length, _ = q.shape
    size = max(1, SCORES // (heads * min(length, ROWS) * k.shape[2]))
    ends = [(a, min(a + ROWS, length)) for a in range(0, length, ROWS)]
    return [(slice(i, i + size), a, b, b if causal else k.shape[2]) for i in range(0, batch, size) for a, b in ends]


def whole(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    cut: list[tuple[slice, int, int, int]],
    dropped: Sequence[Tensor],
    causal: bool,
    scale: float,
    rest: float,
) -> Tensor:
    """What `Blockwise` computes, by operations whose gradients have gradients; (B, H, T, D)."""
    scores = (q * scale) @ k.mT
    if mask is not None:
        scores = scores + mask
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    weights = scores.softmax(-1)
    if dropped:
        left = torch.zeros_like(weights)
        for (rows, a, b, seen), block in zip(cut, dropped, strict=True):
            left[rows, :, a:b, :seen] = (block != 0).unflatten(0, (-1, q.shape[1])).to(left.dtype)
        weights = weights * left.detach()
    return weights @ (v * rest)


def flat(x: Tensor) -> Tensor:
    """(B, H, ...) -> (B H, ...), in one piece."""
    return x.flatten(0, 1).contiguous()


def part(mask: Tensor, rows: slice, a: int, b: int, seen: int) -> Tensor:
    """What a mask says of some samples, some queries and some keys."""
    mask = mask[rows] if len(mask) > 1 else mask
    return mask[:, :, a:b, :seen] if mask.shape[2] > 1 else mask[..., :seen]
