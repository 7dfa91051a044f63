"""Logistic losses of word vectors against several candidates each, with gradients in closed form.

Negative sampling (Mikolov et al. 2013, arXiv:1310.4546, equation 4) and hierarchical softmax (equation 3) are both sums
of binary cross-entropies of inner products. Closed forms need no graph, so that rows of a table are updated in place.
"""

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def logistic_loss(u: Tensor, v: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of -log sigmoid(u.v) where the label is 1, and -log sigmoid(-u.v) where it is 0, in nats.

    Args:
        u: vectors (M, C, D).
        v: candidates of the C vectors of a row (M, Q, D).
        labels: 0 or 1, broadcast to (M, C, Q).
        weights: of each pair (M, C, Q); 0 leaves it out.
    """
    scores = torch.bmm(u, v.transpose(1, 2))  # (M, C, Q)
    return (F.softplus(torch.where(labels > 0, -scores, scores)) * weights).sum()


def logistic_gradients(u: Tensor, v: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `logistic_loss` with respect to u (M, C, D) and v (M, Q, D).

    The derivative with respect to a score is sigmoid(score) - label.
    """
    residuals = torch.bmm(u, v.transpose(1, 2)).sigmoid_().sub_(labels).mul_(weights)  # (M, C, Q)
    return torch.bmm(residuals, v), torch.bmm(residuals.transpose(1, 2), u)


def huffman_codes(counts: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Huffman tree of words (Huffman 1952): inner nodes from the root to each word, and the turns.

    Args:
        counts: of the V words, V at least 2.

    Returns:
        Nodes from 0 to V - 2, -1 after the end of a path, int64 (V, L). Turns, 1 for the rarer child, (V, L).
    """
    size = len(counts)
    heap = [(float(count), i) for i, count in enumerate(counts)]
    heapq.heapify(heap)
    parent, turn = [0] * (2 * size - 1), [0] * (2 * size - 1)
    for node in range(size, 2 * size - 1):
        (rare, left), (common, right) = heapq.heappop(heap), heapq.heappop(heap)
        parent[left] = parent[right] = node
        turn[left] = 1
        heapq.heappush(heap, (rare + common, node))
    paths: list[list[tuple[int, int]]] = []
    for word in range(size):
        path, at = [], word
        while at != 2 * size - 2:
            path.append((parent[at] - size, turn[at]))
            at = parent[at]
        paths.append(path[::-1])
    longest = max(map(len, paths))
    nodes = torch.tensor([[n for n, _ in path] + [-1] * (longest - len(path)) for path in paths])
    turns = torch.tensor([[t for _, t in path] + [0] * (longest - len(path)) for path in paths])
    return nodes, turns
