"""Span corruption (Raffel et al. 2019, 1910.10683, section 3.1.4): pieces of a text are taken out and asked for."""

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.core.spaces import ABSENT


def corrupt(
    tokens: Tensor, share: float, mean: float, first: int, end: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Texts (B, T), `ABSENT` where they are over, to sources (B, S) and targets (B, U).

    In the source every span that is taken out is replaced by a sentinel, `first` for the first span, first + 1 for the
    second ... The target is each sentinel with the tokens of its span. Both end with `end`, and then `ABSENT`. A text
    begins with a piece that is kept and ends with a span. S and U are those of a text that fills its row: so the host
    knows them.

    Args:
        tokens: at least two in each row.
        share: of a row's tokens that are taken out, to within a rounding; at least one is taken and one is left.
        mean: length of a span, on average.
        first: the sentinel of the first span.
        end: the token after a text.
        generator: source of randomness.
    """
    batch, width = tokens.shape
    device = tokens.device
    length = (tokens >= 0).sum(1)
    taken, spans = span_budget(length, share, mean)  # (B,)
    most_taken, most = (int(n) for n in span_budget(torch.tensor(width), share, mean))
    chance = torch.rand(2, batch, width, generator=generator).to(device)
    kept_sizes, taken_sizes = (
        random_partition(n, spans, most, u) for n, u in zip((length - taken, taken), chance, strict=True)
    )
    bounds = torch.stack([kept_sizes, taken_sizes], dim=2).flatten(1).cumsum(1)  # (B, 2 most): pieces end, spans end
    place = torch.arange(width, device=device).expand(batch, -1)
    piece = torch.searchsorted(bounds, place.contiguous(), right=True)  # even: kept, odd: in a span
    inside = (piece % 2 == 1) & (tokens >= 0)
    opens = inside & (F.pad(inside[:, :-1], (1, 0)) == 0)
    sentinel = first + piece // 2
    source = torch.where(opens, sentinel, tokens.masked_fill(inside, ABSENT))
    target = torch.stack([sentinel.masked_fill(~opens, ABSENT), tokens.masked_fill(~inside, ABSENT)], 2).flatten(1)
    return pack_left(source, end, width - most_taken + most + 1), pack_left(target, end, most_taken + most + 1)


def span_budget(length: Tensor, share: float, mean: float) -> tuple[Tensor, Tensor]:
    """How many tokens to take out of so many, and in how many spans; of more tokens neither is less."""
    taken = (length * share).round().long().clamp(min=1).minimum(length - 1)
    return taken, (taken / mean).round().long().clamp(min=1).minimum(taken).minimum(length - taken)


def random_partition(n: Tensor, k: Tensor, most: int, chance: Tensor) -> Tensor:
    """Sizes (B, most) of k (B,) parts, none empty, that n (B,) things are cut into; all ways are as likely.

    Of the n - 1 places between two things, those k - 1 are cut that have the smallest random numbers `chance` (B, W).
    """
    place = torch.arange(chance.shape[1], device=n.device)
    rank = chance.masked_fill(place >= n[:, None] - 1, 2.0).argsort(1).argsort(1)
    cut = (rank < k[:, None] - 1) & (place < n[:, None] - 1)  # after thing `place`
    part = F.pad(cut[:, :-1].long().cumsum(1), (1, 0))
    sizes = torch.zeros(len(n), most, dtype=torch.long, device=n.device)
    return sizes.scatter_add_(1, part.clamp(max=most - 1), (place < n[:, None]).long())


def pack_left(rows: Tensor, end: int, width: int) -> Tensor:
    """The tokens of each row (B, T) moved to its beginning, an end after them, and then `ABSENT`: (B, width)."""
    number = (rows >= 0).sum(1)
    order = (rows < 0).long().argsort(dim=1, stable=True)
    packed = F.pad(rows.gather(1, order), (0, 1), value=ABSENT).scatter(1, number[:, None], end)
    return packed[:, :width]
