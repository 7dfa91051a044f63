"""Approximate search of many vectors by FAISS: graphs (HNSW), inverted lists (IVF) and product quantisation (PQ)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.io.atomic import atomic_replace
from zoo.retrieval.index import Hit, Index
from zoo.retrieval.similarity import prepared

Kind = Literal["flat", "hnsw", "ivf", "pq"]
LINKS = 16  # of each vector in a graph (Malkov & Yashunin 2016, arXiv:1603.09320)
CODES = 8  # parts of a quantised vector, of four bits each (Jégou et al. 2011)
DRAWN = 4  # times k: results of FAISS that are compared again, exactly


class Approximate:
    """A FAISS index beside an exact one. FAISS proposes items, and their similarities are computed exactly.

    It covers the items at the time when it is made. Items that were deleted since are left out of results.

    Args:
        index: cosine, euclidean or inner_product.
        kind: flat (exact), hnsw, ivf or pq.
        effort: lists or nodes that a search visits; more raise recall and time.

    Raises:
        ConfigError: faiss-cpu is not installed, jaccard, an empty index, or a dimension that pq does not divide.
    """

    def __init__(self, index: Index, kind: Kind = "hnsw", effort: int = 64) -> None:
        try:
            import faiss
        except ModuleNotFoundError:
            raise ConfigError(f"kind={kind}: needs FAISS. Install it: pip install 'generative-zoo[search]'.") from None
        ids, vectors = index.vectors()
        if index.similarity == "jaccard" or not len(ids):
            raise ConfigError(f"kind={kind}: FAISS needs vectors, and another similarity than jaccard. Search exactly.")
        n, dim = vectors.shape
        metric = faiss.METRIC_L2 if index.similarity == "euclidean" else faiss.METRIC_INNER_PRODUCT
        lists = max(min(int(4 * n**0.5), n // 39), 1)  # FAISS needs 39 vectors of each list
        if kind == "pq" and dim % CODES:
            raise ConfigError(f"kind=pq: {dim} dimensions are not a multiple of {CODES}. Use hnsw or ivf.")
        recipe = {"flat": "Flat", "hnsw": f"HNSW{LINKS},Flat", "ivf": f"IVF{lists},Flat", "pq": f"PQ{CODES}x4"}
        self.index, self.ids = index, ids
        self.faiss: Any = faiss.index_factory(dim, recipe[kind], metric)
        faiss.omp_set_num_threads(torch.get_num_threads())
        self.faiss.train(vectors.numpy())
        self.faiss.add(vectors.numpy())
        visits = {"hnsw": "efSearch", "ivf": "nprobe"}
        if kind in visits:
            faiss.ParameterSpace().set_index_parameter(self.faiss, visits[kind], effort)

    def save(self, path: str | Path) -> None:
        """Write the FAISS index for other programs; row r is the item `ids[r]`."""
        import faiss

        with atomic_replace(Path(path)) as draft:
            faiss.write_index(self.faiss, str(draft))

    def nearest(self, query: Tensor, k: int = 10, where: Sequence[str] = ()) -> list[Hit]:
        """About the k nearest items to a vector (D,); see `Index.nearest`. Filters apply to what FAISS proposes."""
        vector = prepared(query, self.index.similarity)[None]
        _, rows = self.faiss.search(vector.numpy(), min(DRAWN * k, len(self.ids)))
        proposed = self.ids[torch.from_numpy(rows[0][rows[0] >= 0])]
        return self.index.nearest(query, k, where, proposed)
