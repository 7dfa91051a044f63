"""Context windows of words, cut so that scores of centers and contexts are matrix products."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 32  # centers whose contexts are read together: fewer waste less of a product, more make larger products


@dataclass
class Windows:
    """Centers in chunks of C neighbours, and the words around each chunk.

    Args:
        centers: ids, int64 (M, C).
        contexts: ids from `window` before the first center to `window` after the last one, int64 (M, C + 2 window).
        pairs: 1 where a context belongs to a center, else 0, (M, C, C + 2 window).
        n: contexts of each center, (M, C).
        distance: between center and context, (C, C + 2 window).
    """

    centers: Tensor
    contexts: Tensor
    pairs: Tensor
    n: Tensor
    distance: Tensor

    def select(self, rows: Tensor | slice) -> "Windows":
        """Some of the chunks."""
        return Windows(self.centers[rows], self.contexts[rows], self.pairs[rows], self.n[rows], self.distance)


def context_windows(tokens: Tensor, keep: Tensor, ends: Tensor, reach: Tensor, window: int) -> Windows:
    """Pairs of words that are at most `reach` words apart in one text, after words that are not kept are removed.

    All shapes depend on those of the arguments alone.

    Args:
        tokens: int64 (B, T).
        keep: words that take part, bool (B, T).
        ends: tokens between two texts, bool (B, T); they are not kept.
        reach: of each word as a center, 1 to `window`, int64 (B, T).
        window: the largest reach.
    """
    length = tokens.shape[1]
    place = torch.where(keep, keep.cumsum(1) - 1, length)  # (B, T), dropped words go to one more column
    kept = torch.stack([tokens, reach, ends.cumsum(1)])  # (3, B, T)
    kept = kept.new_zeros(3, len(tokens), length + 1).scatter_(2, place.expand_as(kept), kept)[..., :length]
    words, reach, text = kept
    at = torch.arange(length, device=tokens.device).expand_as(words)
    real = at < keep.sum(1, keepdim=True)
    text = torch.where(real, text, -1)
    change = text[:, 1:] != text[:, :-1]  # (B, T - 1)
    begin = torch.where(F.pad(change, (1, 0), value=True), at, 0).cummax(1).values
    last = torch.where(F.pad(change, (0, 1), value=True), at, length).flip(1).cummin(1).values.flip(1)
    left = torch.minimum(reach, at - begin) * real
    right = torch.minimum(reach, last - at) * real

    chunk = min(CHUNK, length)
    fill = -length % chunk
    centers, left, right = (F.pad(x, (0, fill)).view(-1, chunk) for x in (words, left, right))  # (M, C)
    around = F.pad(words, (window, fill + window)).unfold(1, chunk + 2 * window, chunk).flatten(0, 1)
    offset = torch.arange(chunk + 2 * window, device=tokens.device) - window
    offset = offset - torch.arange(chunk, device=tokens.device)[:, None]  # (C, C + 2 window)
    small = offset.to(torch.int16)
    inside = (small >= -left.to(torch.int16)[..., None]) & (small <= right.to(torch.int16)[..., None]) & (small != 0)
    return Windows(centers, around, inside.float(), (left + right).float(), offset.abs())
