"""All possible links of a parallel corpus as a sparse matrix, for EM of IBM model 1."""

from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array
from torch import Tensor


class Links:
    """The links of target positions with source words; equal pairs of words share one entry of a table.

    Args:
        keys: int64 (L,), pair of words of each link. The links of a target position are adjacent.
        widths: int64 (P,), number of links of each target position.
    """

    keys: Tensor  # (N,) int64, sorted: the entries

    def __init__(self, keys: Tensor, widths: Tensor) -> None:
        ordered, self._order = argsort(keys.numpy())
        new = np.empty(len(ordered), bool)
        new[:1] = True
        np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
        first = np.flatnonzero(new)
        self.keys = torch.from_numpy(ordered[first])
        self._begins = np.append(first, len(ordered))
        self.widths = widths.numpy()
        position = np.repeat(np.arange(len(widths), dtype=np.int32), self.widths)[self._order]
        # Rows are entries and columns target positions; int32 begins are faster, and suffice for 2^31 links.
        begins = self._begins.astype(np.int32) if len(keys) < 2**31 else self._begins
        shape, ones = (len(first), len(widths)), np.ones(len(keys))
        self.by_entry = csr_array((ones, position, begins), shape)
        self.by_position = csc_array((ones, position, begins), shape[::-1])  # its transpose, without a copy

    @cached_property
    def index(self) -> Tensor:
        """Entry of each link, int64 (L,)."""
        index = np.empty(len(self._order), np.int64)
        index[self._order] = np.repeat(np.arange(len(self.keys)), np.diff(self._begins))
        return torch.from_numpy(index)

    def expected_counts(self, t: Tensor, real: Tensor) -> tuple[Tensor, float]:
        """Expected number of links of each entry (N,) under IBM model 1, and the log-likelihood in nats.

        A link of position p has the posterior t / sum of t over the links of p (Brown et al. 1993, equation 17). So the
        counts are t times the sum of 1 / sum over the positions of an entry: two sparse matrix products.

        Args:
            t: table (N,).
            real: bool (P,), False for padded positions, which do not count.
        """
        total, some = self.by_position @ t.numpy(), real.numpy()
        nats = float(np.log(total[some] / self.widths[some]).sum())
        return t * torch.from_numpy(self.by_entry @ np.where(some, 1 / total, 0.0)), nats


def argsort(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted keys (L,), and the order that sorts them; of equal ones, the first one first.

    Key and place are sorted as one number where both fit into 63 bits, which is several times as fast.
    """
    bits = max(len(keys) - 1, 1).bit_length()
    if not len(keys) or int(keys.max()) >= 1 << (63 - bits):
        order = np.argsort(keys, kind="stable")
        return keys[order], order
    both = (keys << bits) | np.arange(len(keys))
    both.sort()
    return both >> bits, both & ((1 << bits) - 1)
