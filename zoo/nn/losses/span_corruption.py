"""Span corruption (T5; Raffel et al. 2019, 1910.10683, section 3.1.4): random spans become sentinels and targets."""

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.spaces import ABSENT


def corrupt_spans(
    tokens: Tensor,
    noise_density: float,
    mean_span_length: float,
    first_sentinel: int,
    eos: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Split texts (B, T), padded with `ABSENT`, into sources (B, S) and targets (B, U).

    In the source a sentinel replaces each removed span: `first_sentinel`, then first_sentinel + 1 and so on. The target
    lists each sentinel with the tokens of its span. Both end with `eos`, then `ABSENT`. A text starts with a kept
    segment and ends with a span. S and U depend on T alone, so no device synchronisation is needed.

    Args:
        tokens: at least two in each row.
        noise_density: fraction of a row's tokens to remove, rounded; at least one is removed and one kept.
        mean_span_length: average tokens per span.
        first_sentinel: id of the first span's sentinel.
        eos: id of the token after a text.
        generator: source of randomness, on the CPU.
    """
    batch, width = tokens.shape
    device = tokens.device
    length = (tokens >= 0).sum(1)
    n_removed, n_spans = span_budget(length, noise_density, mean_span_length)  # (B,)
    max_removed, max_spans = (int(n) for n in span_budget(torch.tensor(width), noise_density, mean_span_length))
    noise = torch.rand(2, batch, width, generator=generator).to(device)
    kept_lengths, span_lengths = (
        random_partition(n, n_spans, max_spans, u) for n, u in zip((length - n_removed, n_removed), noise, strict=True)
    )
    bounds = torch.stack([kept_lengths, span_lengths], dim=2).flatten(1).cumsum(1)  # (B, 2 max_spans)
    position = torch.arange(width, device=device).expand(batch, -1)
    segment = torch.searchsorted(bounds, position.contiguous(), right=True)  # even: kept, odd: in a span
    inside = (segment % 2 == 1) & (tokens >= 0)
    span_start = inside & (F.pad(inside[:, :-1], (1, 0)) == 0)
    sentinel = first_sentinel + segment // 2
    source = torch.where(span_start, sentinel, tokens.masked_fill(inside, ABSENT))
    target = torch.stack([sentinel.masked_fill(~span_start, ABSENT), tokens.masked_fill(~inside, ABSENT)], 2).flatten(1)
    widths = width - max_removed + max_spans + 1, max_removed + max_spans + 1
    return pack_left(source, eos, widths[0]), pack_left(target, eos, widths[1])


def span_budget(length: Tensor, noise_density: float, mean_span_length: float) -> tuple[Tensor, Tensor]:
    """Return how many of `length` tokens to remove, and in how many spans; both never decrease with `length`."""
    n_removed = (length * noise_density).round().long().clamp(min=1).minimum(length - 1)
    n_spans = (n_removed / mean_span_length).round().long().clamp(min=1)
    return n_removed, n_spans.minimum(n_removed).minimum(length - n_removed)


def random_partition(n: Tensor, k: Tensor, max_parts: int, noise: Tensor) -> Tensor:
    """Sizes (B, max_parts) of a uniformly random partition of n (B,) items into k (B,) non-empty parts.

    The k - 1 cuts are those of the n - 1 boundaries with the smallest random numbers `noise` (B, W).
    """
    position = torch.arange(noise.shape[1], device=n.device)
    rank = noise.masked_fill(position >= n[:, None] - 1, 2.0).argsort(1).argsort(1)
    cut = (rank < k[:, None] - 1) & (position < n[:, None] - 1)  # after item `position`
    part = F.pad(cut[:, :-1].long().cumsum(1), (1, 0))
    sizes = torch.zeros(len(n), max_parts, dtype=torch.long, device=n.device)
    return sizes.scatter_add_(1, part.clamp(max=max_parts - 1), (position < n[:, None]).long())


def pack_left(rows: Tensor, eos: int, width: int) -> Tensor:
    """Move the tokens of each row (B, T) to its start, append `eos`, and pad with `ABSENT`: (B, width)."""
    count = (rows >= 0).sum(1)
    order = (rows < 0).long().argsort(dim=1, stable=True)
    packed = F.pad(rows.gather(1, order), (0, 1), value=ABSENT).scatter(1, count[:, None], eos)
    return packed[:, :width]
