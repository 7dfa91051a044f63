"""Approximate search of many vectors by FAISS: graphs (HNSW), inverted lists (IVF) and product quantisation (PQ)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zoo.core.errors import ConfigError, DataError
from zoo.io.atomic import atomic_replace, write_bytes
from zoo.retrieval.index import Hit, Index
from zoo.retrieval.similarity import prepared

Kind = Literal["flat", "hnsw", "ivf", "pq"]
LINKS = 16  # of each vector in a graph (Malkov & Yashunin 2016, arXiv:1603.09320)
CODES = 8  # parts of a quantised vector, of four bits each (Jégou et al. 2011)
DRAWN = 4  # times k: results of FAISS that are compared again, exactly
VISITS = {"hnsw": "efSearch", "ivf": "nprobe"}  # FAISS's name of the effort
FILE = "approximate.safetensors"  # in the folder of an index


class Approximate:
    """A FAISS index beside an exact one. FAISS proposes items, and their similarities are computed exactly.

    It covers the items at the time when it is made. Later items are compared exactly, and deleted ones are left out.

    Args:
        index: cosine, euclidean or inner_product.
        kind: flat (exact), hnsw, ivf or pq.
        effort: lists or nodes that a search visits; more raise recall and time.

    Raises:
        ConfigError: faiss-cpu is not installed, jaccard, an empty index, or a dimension that pq does not divide.
    """

    def __init__(self, index: Index, kind: Kind = "hnsw", effort: int = 64) -> None:
        faiss = imported(kind)
        if kind not in get_args(Kind):
            raise ConfigError(f"kind={kind}: unknown. Use {', '.join(get_args(Kind))}.")
        ids, vectors = index.vectors()
        if index.similarity == "jaccard" or not len(ids):
            raise ConfigError(f"kind={kind}: FAISS needs vectors, and another similarity than jaccard. Search exactly.")
        n, dim = vectors.shape
        metric = faiss.METRIC_L2 if index.similarity == "euclidean" else faiss.METRIC_INNER_PRODUCT
        lists = max(min(int(4 * n**0.5), n // 39), 1)  # FAISS needs 39 vectors of each list
        if kind == "pq" and dim % CODES:
            raise ConfigError(f"kind=pq: {dim} dimensions are not a multiple of {CODES}. Use hnsw or ivf.")
        recipe = {"flat": "Flat", "hnsw": f"HNSW{LINKS},Flat", "ivf": f"IVF{lists},Flat", "pq": f"PQ{CODES}x4"}
        self.index, self.ids, self.kind = index, ids, kind
        self.faiss: Any = faiss.index_factory(dim, recipe[kind], metric)
        faiss.omp_set_num_threads(torch.get_num_threads())
        self.faiss.train(vectors.numpy())
        self.faiss.add(vectors.numpy())
        self.set_effort(effort)

    def set_effort(self, effort: int) -> None:
        """Set the number of lists or nodes that a search visits; flat and pq do not have one."""
        self.effort = effort
        if self.kind in VISITS:
            imported(self.kind).ParameterSpace().set_index_parameter(self.faiss, VISITS[self.kind], effort)

    def save(self, path: str | Path) -> None:
        """Write the FAISS index for other programs; row r is the item `ids[r]`."""
        faiss = imported(self.kind)
        with atomic_replace(Path(path)) as draft:
            faiss.write_index(self.faiss, str(draft))

    def keep(self) -> None:
        """Write it to the folder of the index, for `open`."""
        content = torch.from_numpy(imported(self.kind).serialize_index(self.faiss))
        facts = {"kind": self.kind, "effort": str(self.effort)}
        write_bytes(self.index.folder / FILE, save({"ids": self.ids, "faiss": content}, facts))

    @classmethod
    def open(cls, index: Index) -> "Approximate | None":
        """Read what `keep` wrote to the folder of an index; None without it.

        Raises:
            ConfigError: faiss-cpu is not installed.
            DataError: the file is damaged.
        """
        path = index.folder / FILE
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                facts, ids, content = file.metadata(), file.get_tensor("ids"), file.get_tensor("faiss")
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: {error}. Make it again: zoo index --kind.") from None
        found = cls.__new__(cls)
        found.index, found.ids, found.kind = index, ids, facts["kind"]
        faiss = imported(found.kind)
        faiss.omp_set_num_threads(torch.get_num_threads())
        found.faiss = faiss.deserialize_index(content.numpy())
        found.set_effort(int(facts["effort"]))
        return found

    def nearest(self, query: Tensor, k: int = 10, where: Sequence[str] = ()) -> list[Hit]:
        """About the k nearest items to a vector (D,); see `Index.nearest`. Filters apply to what FAISS proposes.

        Raises:
            DataError: a vector of another dimension.
        """
        vector = prepared(query, self.index.similarity)[None]
        if vector.shape[1] != self.faiss.d:
            raise DataError(
                f"query={tuple(query.shape)}: this index has vectors ({self.faiss.d},). Embed by the same model."
            )
        _, rows = self.faiss.search(vector.numpy(), min(DRAWN * k, len(self.ids)))
        proposed = self.ids[torch.from_numpy(rows[0][rows[0] >= 0])]
        now, _ = self.index.vectors()
        later = now[torch.searchsorted(now, self.ids[-1:], right=True) :]  # ids only grow
        return self.index.nearest(query, k, where, torch.cat([proposed, later]))


def imported(kind: str) -> Any:
    """FAISS.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError:
        raise ConfigError(f"kind={kind}: needs FAISS. Install it: pip install 'generative-zoo[search]'.") from None
    return faiss
