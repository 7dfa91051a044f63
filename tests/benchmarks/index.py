"""Measure the index: `python -m tests.benchmarks.index [N ...]`; recall and time of each kind of search.

Vectors are drawn from 1,000 Gaussian clusters around points of the unit sphere, and queries from the same clusters.
Recall is the share of the ten nearest by brute force. Times are processor time of the whole search on one core: FAISS,
exact similarities of what it proposes, and reading the items.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.retrieval.approximate import Approximate, Kind
from zoo.retrieval.index import Hit, Index

SIZES, DIM, QUERIES, K, CLUSTERS, SPREAD = (10_000, 100_000), 128, 100, 10, 1000, 0.05
EFFORTS: dict[Kind, tuple[int, ...]] = {"flat": (1,), "hnsw": (16, 64, 256), "ivf": (1, 8, 32, 128), "pq": (1,)}


def draw(n: int, seed: int) -> Tensor:
    """Vectors (n, DIM) of the clusters."""
    centres = torch.nn.functional.normalize(
        torch.randn(CLUSTERS, DIM, generator=torch.Generator().manual_seed(9)), dim=1
    )
    g = torch.Generator().manual_seed(seed)
    return centres[torch.randint(0, CLUSTERS, (n,), generator=g)] + SPREAD * torch.randn(n, DIM, generator=g)


def timed(search: Callable[[Tensor, int], list[Hit]], queries: Tensor) -> tuple[list[set[int]], list[float]]:
    """Ids that a search finds for each query, and milliseconds, sorted."""
    found, times = [], []
    search(queries[0], K)
    for query in queries:
        begun = time.process_time()
        hits = search(query, K)
        times.append(1000 * (time.process_time() - begun))
        found.append({hit.id for hit in hits})
    return found, sorted(times)


def measure(n: int, folder: Path) -> None:
    """Print the rows of one number of vectors."""
    begun = time.process_time()
    index = Index.create(folder / str(n))
    index.add(draw(n, 0))
    opened = Index(folder / str(n))
    opened.vectors()
    seconds, queries = time.process_time() - begun, draw(QUERIES, 1)
    right, times = timed(opened.nearest, queries)
    row(n, "exact", "", seconds, 1.0, times)
    for kind, efforts in EFFORTS.items():
        begun = time.process_time()
        some: Any = Approximate(opened, kind)
        seconds = time.process_time() - begun
        for effort in efforts:
            some.set_effort(effort)
            found, times = timed(some.nearest, queries)
            share = sum(len(a & b) for a, b in zip(found, right, strict=True)) / (K * QUERIES)
            row(n, kind, str(effort) if len(efforts) > 1 else "", seconds, share, times)


def row(n: int, kind: str, effort: str, seconds: float, recall: float, times: list[float]) -> None:
    """Print a row: build, recall, median and 99th percentile of a search."""
    middle, late = times[len(times) // 2], times[-2]
    print(f"| {n:,} | {kind} | {effort} | {seconds:.1f} | {recall:.3f} | {middle:.2f} | {late:.2f} |", flush=True)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| vectors | search | effort | build, s | recall@10 | median, ms | 99 %, ms |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for n in map(int, sys.argv[1:] or SIZES):
            measure(n, Path(folder))
    print(f"{time.process_time():.0f} s of processor time")


if __name__ == "__main__":
    main()
