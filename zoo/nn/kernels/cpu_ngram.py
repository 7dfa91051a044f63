"""Next-token probabilities of one history under interpolated Kneser-Ney smoothing, by numpy.

The reference is `zoo.nn.networks.kneser_ney.KneserNey.logits`: the same sums for a batch, whose many small tensor
operations take most of the time if there are few rows.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

MAX_ROWS = 4  # up to so many histories


def next_probabilities(tables: Iterable[Any], history: Sequence[int], vocabulary: int) -> Any:
    """Probabilities of all tokens after a history, where negative tokens are padding: float64 (vocabulary,).

    Args:
        tables: fitted tables, of n-grams of 1, 2, ... tokens, on the CPU.
        history: token ids.
        vocabulary: number of tokens.
    """
    p, keys = np.full(vocabulary, 1 / vocabulary), list[Any]()
    for k, table in enumerate(tables):
        context = context_index(keys, history[len(history) - k :], vocabulary) if k <= len(history) else -1
        if context < 0:
            break  # a longer context is unseen too
        keys.append(table.keys.numpy())
        first, last = np.searchsorted(keys[-1], (context * vocabulary, (context + 1) * vocabulary))
        total = table.totals.numpy()[context]
        if not total:
            continue
        discount = table.discounts.numpy().astype(np.float64)
        counts = table.counts.numpy()[first:last]
        p *= table.kinds.numpy()[context].astype(np.float64) @ discount[1:]
        p[keys[-1][first:last] - context * vocabulary] += counts - discount[np.minimum(counts, 3)]
        p /= total
    return p


def context_index(keys: Sequence[Any], tokens: Sequence[int], vocabulary: int) -> int:
    """Index of an n-gram in the table of its length; -1 for an unseen one."""
    index = 0
    for found, token in zip(keys, tokens, strict=True):
        if token < 0:
            return -1
        key = index * vocabulary + token
        index = int(np.searchsorted(found, key))
        if index == len(found) or found[index] != key:
            return -1
    return index
