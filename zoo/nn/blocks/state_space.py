"""Linear state spaces whose step depends on the input, evaluated in chunks."""

import torch
from torch import Tensor
from torch.nn import functional as F


def state_space(
    x: Tensor, step: Tensor, rate: Tensor, b: Tensor, c: Tensor, state: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """Outputs y_t = c_t h_t of states h_t = exp(step_t rate) h_{t-1} + step_t x_t b_t^T.

    That is the recurrence of Mamba 2 (Dao & Gu 2024, arXiv:2405.21060). Inside a chunk it is a masked product of
    matrices, as in attention. Only states at the ends of chunks are passed on (section 6). Sums are of at least
    float32.

    Args:
        x: inputs of each head (B, T, H, P).
        step: non-negative sizes of steps (B, T, H); a step of 0 leaves the state as it is.
        rate: negative rates of decay (H,).
        b: input directions (B, T, G, N), shared by H / G successive heads.
        c: output directions (B, T, G, N).
        state: h before the first step (B, H, P, N); None is zero.
        chunk: steps of a chunk.

    Returns:
        y (B, T, H, P), and h after the last step (B, H, P, N).
    """
    batch, length, heads, width = x.shape
    groups, size = b.shape[2:]
    dtype = torch.promote_types(x.dtype, torch.float32)
    chunk = min(chunk, length)
    count = -(-length // chunk)

    def chunked(part: Tensor, *shape: int) -> Tensor:
        """(B, T, ...) -> (B, K, Q, *shape); the steps that are added have size 0."""
        rest = [0, 0] * (part.ndim - 2)
        return F.pad(part.to(dtype), [*rest, 0, count * chunk - length]).view(batch, count, chunk, *shape)

    per_group = (groups, heads // groups)  # G, R
    step = chunked(step, *per_group)
    total = (step * rate.to(dtype).view(per_group)).cumsum(2)  # log decay from the chunk's begin, (B, K, Q, G, R)
    moved = chunked(x, *per_group, width) * step[..., None]  # (B, K, Q, G, R, P)
    b, c = chunked(b, groups, size), chunked(c, groups, size)  # (B, K, Q, G, N)

    # Inside the chunks.
    later = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).triu(1)[:, :, None, None]  # from j > i
    decay = (total[:, :, :, None] - total[:, :, None]).masked_fill(later, -torch.inf).exp()  # (B, K, Q, Q, G, R)
    scores = torch.einsum("bkign,bkjgn->bkijg", c, b)
    y = torch.einsum("bkijgr,bkjgrp->bkigrp", scores[..., None] * decay, moved)

    # From chunk to chunk.
    left = (total[:, :, -1:] - total).exp()  # decay to the chunk's end, (B, K, Q, G, R)
    added = torch.einsum("bkjgn,bkjgr,bkjgrp->bkgrpn", b, left, moved)
    kept = total[:, :, -1].exp()[..., None, None]  # (B, K, G, R, 1, 1)
    h = x.new_zeros(batch, *per_group, width, size, dtype=dtype) if state is None else state.view_as(added[:, 0])
    before = []
    for k in range(count):
        before.append(h)
        h = kept[:, k] * h + added[:, k]
    y = y + torch.einsum("bkign,bkigr,bkgrpn->bkigrp", c, total.exp(), torch.stack(before, 1))

    y = y.reshape(batch, count * chunk, heads, width)[:, :length]
    return y, h.reshape(batch, heads, width, size)
