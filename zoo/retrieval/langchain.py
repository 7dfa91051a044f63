"""An index as LangChain's vector store and retriever, and a model of the zoo as its embeddings.

It needs `pip install 'generative-zoo[langchain]'`.

```python
from zoo.retrieval.langchain import ZooEmbeddings, ZooRetriever, ZooVectorStore

store = ZooVectorStore("index")  # made by `zoo index`; its model embeds queries
store = ZooVectorStore("new", ZooEmbeddings("RUN"))  # or any embeddings of LangChain
store.add_texts(["a passage"], [{"year": 1990}], ids=["first"])
store.similarity_search("words", k=4, filter={"year": 1990})
ZooRetriever(folder="index", k=4).invoke("words")  # BM25 and vectors together
```
"""

import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.retrieval.build import embedder_of
from zoo.retrieval.embedding import Embedder
from zoo.retrieval.index import DATABASE, Hit, Index
from zoo.retrieval.similarity import Similarity

try:
    import numpy as np
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.vectorstores import VectorStore
    from langchain_core.vectorstores.utils import maximal_marginal_relevance
    from pydantic import PrivateAttr
except ImportError:
    raise ConfigError(
        "zoo.retrieval.langchain: needs langchain-core. Install it: pip install 'generative-zoo[langchain]'."
    ) from None

DOCUMENT_ID = "langchain_id"  # key of an item's metadata: LangChain's ids are texts, and those of an index numbers
NAME = f"coalesce(json_extract(metadata, '$.{DOCUMENT_ID}'), cast(id AS TEXT))"  # SQL: the id of a document


class ZooEmbeddings(Embeddings):
    """Vectors of texts by a model of the zoo.

    Args:
        run: a run folder, a checkpoint, a pretrained or published model that embeds texts, or its `Embedder`.
        device: cpu, cuda ...

    Raises:
        ConfigError: the model does not give vectors.
    """

    def __init__(self, run: str | Path | Embedder, device: str = "cpu") -> None:
        self.embedder = run if isinstance(run, Embedder) else Embedder(run, device)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Texts -> vectors.

        Raises:
            ConfigError: the model does not embed texts.
        """
        return self.embedder.texts(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        """A text -> its vector."""
        return self.embed_documents([text])[0]


class ZooVectorStore(VectorStore):
    """LangChain's vector store in an index of the zoo: a folder with exact search, which survives a kill.

    All work on the index happens in one thread, so that the store may be shared. Scores are similarities: higher is
    nearer. Metadata are plain values.

    Args:
        folder: of an index, or a new one.
        embedding: of texts; None is the model that made the index.
        similarity: of a new index: cosine, euclidean, inner_product or jaccard.

    Raises:
        ConfigError: a new index without embeddings, or embeddings of another model than those of the index.
    """

    def __init__(
        self, folder: str | Path, embedding: Embeddings | None = None, similarity: Similarity = "cosine"
    ) -> None:
        self._thread = ThreadPoolExecutor(1, "zoo-langchain-index")  # SQLite's connections belong to a thread
        self.folder = Path(folder)
        about = embedding.embedder.about if isinstance(embedding, ZooEmbeddings) else {}
        new = not (self.folder / DATABASE).is_file()
        if new and embedding is None:
            raise ConfigError(f"folder={folder}: no index, and no embedding to make one. Give one, or use zoo index.")
        self.index: Index = self._do(lambda: Index.create(folder, similarity, about) if new else Index(folder))
        known = self.index.about.get("sha256")
        if about and known != about["sha256"]:
            raise ConfigError(
                f"embedding={about['run']}: another model than that of the index {folder}. Use the same one, or make a "
                f"new index."
            )
        self._embedding = embedding or ZooEmbeddings(embedder_of(self.index))

    def _do(self, work: Callable[[], Any]) -> Any:
        """Run a function in the thread of the index."""
        return self._thread.submit(work).result()

    @property
    def embeddings(self) -> Embeddings:
        """The embeddings of texts."""
        return self._embedding

    # -- writing

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed and add texts: their ids. A text with a known id replaces the former one.

        Raises:
            ValueError: numbers of texts, metadata and ids that differ.
        """
        found = list(texts)
        for name, other in (("metadatas", metadatas), ("ids", ids)):
            if other and len(other) != len(found):
                raise ValueError(f"{name}: {len(other)} for {len(found)} texts. Give one each.")
        names = [name or str(uuid.uuid4()) for name in ids or [None] * len(found)]
        given = metadatas or [{}] * len(found)
        facts = [dict(one) | {DOCUMENT_ID: name} for one, name in zip(given, names, strict=True)]
        rows = list({name: row for row, name in enumerate(names)}.values())  # the last one of each id
        if rows:
            vectors = torch.tensor(self._embedding.embed_documents([found[row] for row in rows]))
            self._do(lambda: self._add(vectors, [found[row] for row in rows], [facts[row] for row in rows]))
        return names

    def _add(self, vectors: Tensor, texts: list[str], metadata: list[dict[str, Any]]) -> None:
        before = self._numbers([one[DOCUMENT_ID] for one in metadata])
        self.index.add(vectors, texts, metadata)
        self.index.delete(before)  # afterwards: a killed process leaves a former text too, rather than none

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents by id, or all of them for None. Unknown ids are left out."""
        self._do(lambda: self.index.delete(self._numbers(ids)))
        return True

    def _numbers(self, ids: Sequence[str] | None) -> list[int]:
        """Numbers of the items with these ids, in their order; of all items for None."""
        rows = self.index.database.execute(f"SELECT {NAME}, id FROM items").fetchall()
        if ids is None:
            return [number for _, number in rows]
        known = dict(rows)
        return [known[name] for name in dict.fromkeys(ids) if name in known]

    # -- reading

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by id; unknown ids are left out."""

        def work() -> list[Hit]:
            numbers = self._numbers(ids)
            return self.index.hits_of(numbers, [0.0] * len(numbers))

        return [document_of(hit) for hit in self._do(work)]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The k nearest documents to a text; see `nearest`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """The k nearest documents to a text, with their similarities; see `nearest`."""
        hits = self.nearest(self._embedding.embed_query(query), k, **kwargs)
        return [(document_of(hit), hit.score) for hit in hits]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """The k nearest documents to a vector; see `nearest`."""
        return [document_of(hit) for hit in self.nearest(embedding, k, **kwargs)]

    def nearest(
        self, embedding: list[float], k: int = 4, filter: dict[str, Any] | None = None, where: Sequence[str] = ()
    ) -> list[Hit]:
        """The k nearest items to a vector.

        Args:
            embedding: the vector.
            k: most items.
            filter: values that metadata must have.
            where: filters of `Index.nearest`, such as `year>=1990`.
        """

        def work() -> list[Hit]:
            among = None if not filter else torch.tensor(self._fitting(filter), dtype=torch.int64)
            return self.index.nearest(torch.tensor(embedding), k, where, among)

        return self._do(work)

    def _fitting(self, filter: dict[str, Any]) -> list[int]:
        """Numbers of the items with these metadata."""
        condition = " AND ".join("json_extract(metadata, ?) = ?" for _ in filter)
        values = [part for key, value in filter.items() for part in (f'$."{key}"', value)]
        return [row[0] for row in self.index.database.execute(f"SELECT id FROM items WHERE {condition}", values)]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """k documents that are near to a text, and not to each other (Carbonell & Goldstein 1998)."""
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Choose k of the `fetch_k` nearest documents: near to a vector, and not to each other."""
        hits = self.nearest(embedding, fetch_k, **kwargs)
        ids, vectors = self._do(self.index.vectors)
        rows = torch.searchsorted(ids, torch.tensor([hit.id for hit in hits], dtype=torch.int64))
        chosen = maximal_marginal_relevance(np.array(embedding), vectors[rows].tolist(), lambda_mult, k) if hits else []
        return [document_of(hits[number]) for number in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """Similarity -> relevance in [0, 1], which grows with it."""
        return {
            "cosine": lambda score: (1 + score) / 2,
            "euclidean": lambda score: 1 / (1 - score),  # the score is the negative distance
            "inner_product": lambda score: (1 + math.tanh(score / 2)) / 2,
            "jaccard": lambda score: score,
        }[self.index.similarity]

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        folder: str | Path | None = None,
        similarity: Similarity = "cosine",
        **kwargs: Any,
    ) -> "ZooVectorStore":
        """Make a store of texts in a folder.

        Raises:
            ConfigError: without a folder.
        """
        if folder is None:
            raise ConfigError("folder: not given. Add folder=PATH, where the index is kept.")
        store = cls(folder, embedding, similarity)
        store.add_texts(texts, metadatas, ids=ids)
        return store


class ZooRetriever(BaseRetriever):
    """LangChain's retriever over an index: BM25, together with vectors if the index has them (see `Index.fuse`).

    Args:
        folder: of an index of texts.
        k: most documents.
        where: filters, such as `year>=1990`.
        device: of the model that embeds the query.
    """

    folder: Path
    k: int = 4
    where: tuple[str, ...] = ()
    device: str = "cpu"
    _opened: Any = PrivateAttr(None)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        if self._opened is None:
            thread = ThreadPoolExecutor(1, "zoo-langchain-index")
            index = thread.submit(Index, self.folder).result()
            self._opened = thread, index, embedder_of(index, self.device) if "run" in index.about else None
        thread, index, embedder = self._opened
        most = self.k if k is None else k
        if embedder is None:
            hits = thread.submit(index.search_text, query, most, self.where).result()
        else:
            hits = thread.submit(index.fuse, query, embedder.texts([query])[0], most, self.where).result()
        return [document_of(hit) for hit in hits]


def document_of(hit: Hit) -> Document:
    """LangChain's document of an item."""
    facts = dict(hit.metadata)
    return Document(id=facts.pop(DOCUMENT_ID, str(hit.id)), page_content=hit.text, metadata=facts)
