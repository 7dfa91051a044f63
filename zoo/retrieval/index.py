"""An index on disk: vectors in safetensors files, texts and metadata in SQLite.

`add` writes a file of vectors, flushes it to disk, and then commits the rows that refer to it in one transaction. A
process that is killed leaves the index as it was before the call, or after it. Files of vectors never change.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from zoo.core.errors import ConfigError, DataError
from zoo.io.atomic import atomic_replace, fsync, write_bytes
from zoo.retrieval.similarity import SIMILARITIES, Similarity, nearest, prepared, similarities

DATABASE = "index.sqlite"
OPERATORS = ("<=", ">=", "!=", "=", "<", ">")  # of filters, longer ones first
FUSION = 60  # constant of reciprocal rank fusion (Cormack, Clarke & Buettcher 2009)
CANDIDATES = 100  # of each ranking in a fusion
PART = 500  # items that are read by one query
SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT, metadata TEXT NOT NULL, file TEXT, row INTEGER
);
CREATE VIRTUAL TABLE texts USING fts5(text, tokenize = "unicode61 remove_diacritics 2");
"""


@dataclass(frozen=True)
class Hit:
    """An item that a search found.

    Args:
        id: of the item.
        score: similarity, BM25, or sum of reciprocal ranks; higher is better.
        text: of the item; empty for items without text.
        metadata: plain values.
    """

    id: int
    score: float
    text: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Context of changes to the database in a folder.

    Raises:
        DataError: the disk is full, the folder cannot be written, or another program keeps the database locked.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise DataError(f"index={folder}: {error}. Check the disk and the folder, then repeat.") from None


class Index:
    """A folder with items: vectors, texts or both. Exact search by matrix products; BM25 by SQLite's FTS5.

    Args:
        folder: of an existing index; see `Index.create`.

    Raises:
        ConfigError: not an index.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / DATABASE).is_file():
            raise ConfigError(f"index={folder}: no file {DATABASE} in this folder. Make an index: zoo index.")
        self.database = sqlite3.connect(self.folder / DATABASE, timeout=60, isolation_level=None)
        try:
            self.database.execute("PRAGMA synchronous = FULL")
            self.about = dict(self.database.execute("SELECT key, value FROM about"))
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"index={folder}: damaged ({error}). Make it again: zoo index.") from None
        self.similarity: Similarity = self.about["similarity"]
        self._cache: tuple[Any, Tensor, Tensor] | None = None

    @classmethod
    def create(cls, folder: str | Path, similarity: Similarity = "cosine", about: Mapping[str, str] = {}) -> "Index":
        """Make an empty index in a new or empty folder.

        Args:
            folder: where.
            similarity: cosine, euclidean, inner_product or jaccard.
            about: facts to keep, such as the model that embeds.

        Raises:
            ConfigError: the folder is not empty, or an unknown similarity.
            DataError: the disk is full.
        """
        folder = Path(folder)
        if similarity not in SIMILARITIES:
            raise ConfigError(f"similarity={similarity}: unknown. Use {', '.join(SIMILARITIES)}.")
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"out={folder}: not empty. Choose a new folder.")
        folder.mkdir(parents=True, exist_ok=True)
        facts = {**about, "similarity": similarity, "version": "1"}
        with atomic_replace(folder / DATABASE) as draft, writing(folder), closing(sqlite3.connect(draft)) as database:
            database.executescript(SCHEMA)
            database.executemany("INSERT INTO about VALUES (?, ?)", facts.items())
            database.commit()
        return cls(folder)

    def __len__(self) -> int:
        return int(self.database.execute("SELECT count(*) FROM items").fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all or nothing; other writers wait.

        Raises:
            DataError: the disk is full, or the folder cannot be written.
        """
        with writing(self.folder):
            self.database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.database.execute("COMMIT")
            except BaseException:
                if self.database.in_transaction:  # SQLite ends it itself where the disk is full
                    self.database.execute("ROLLBACK")
                raise

    # -- writing

    def add(
        self, vectors: Tensor | None = None, texts: Sequence[str] = (), metadata: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Add items: their ids, in order.

        Args:
            vectors: (N, D), or none.
            texts: N, or none.
            metadata: plain values of each item, or none.

        Raises:
            DataError: different numbers of items, vectors of another dimension or with values that are not finite.
        """
        sizes = {len(part) for part in (vectors, texts, metadata) if part is not None and len(part)}
        if len(sizes) != 1:
            raise DataError(f"add: {len(sizes)} different numbers of vectors, texts and metadata. Give one each.")
        (n,) = sizes
        name = None
        if vectors is not None:
            self._check(vectors)
            name = self._write(prepared(vectors.detach().cpu(), self.similarity))
        with self.transaction():
            found = []
            for row in range(n):
                values = json.dumps(dict(metadata[row])) if metadata else "{}"
                done = self.database.execute(
                    "INSERT INTO items (metadata, file, row) VALUES (?, ?, ?)", (values, name, row)
                )
                found.append(int(done.lastrowid or 0))
            if texts:
                self.database.executemany(
                    "INSERT INTO texts (rowid, text) VALUES (?, ?)", zip(found, texts, strict=True)
                )
        return found

    def delete(self, ids: Sequence[int] = (), where: Sequence[str] = ()) -> int:
        """Delete items by id, or all that fit filters: their number. `compact` removes their vectors from disk."""
        chosen = list(ids)
        if where:
            chosen += [row[0] for row in self.database.execute(*self._select("id", where))]
        with self.transaction():
            before = len(self)
            for table, column in (("items", "id"), ("texts", "rowid")):
                self.database.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(i,) for i in chosen])
            return before - len(self)

    def compact(self) -> None:
        """Write the vectors of all remaining items to one file, and remove all other files; ids stay."""
        with self.transaction():
            ids, vectors = self.vectors()
            name = self._write(vectors) if len(ids) else None
            rows = [(name, row, number) for row, number in enumerate(ids.tolist())]
            self.database.executemany("UPDATE items SET file = ?, row = ? WHERE id = ?", rows)
        with writing(self.folder):
            self.database.execute("VACUUM")
        for path in self.folder.glob("vectors-*.safetensors"):
            if path.name != name:
                path.unlink()

    def _write(self, vectors: Tensor) -> str:
        """Write a new file of vectors to disk: its name."""
        taken = [int(path.stem.split("-")[1]) for path in self.folder.glob("vectors-*.safetensors")]
        path = self.folder / f"vectors-{max(taken, default=0) + 1:06d}.safetensors"
        write_bytes(path, save({"vectors": vectors.contiguous()}))
        fsync(path)
        fsync(self.folder)
        return path.name

    def _check(self, vectors: Tensor) -> None:
        if vectors.ndim != 2 or not bool(torch.isfinite(vectors).all()):
            raise DataError(f"vectors={tuple(vectors.shape)}: not finite vectors (N, D). Check what embeds them.")
        if self.similarity == "jaccard" and bool((vectors < 0).any()):
            raise DataError("vectors: negative values, which jaccard excludes. Use another similarity.")
        _, known = self.vectors()
        if len(known) and known.shape[1] != vectors.shape[1]:
            raise DataError(
                f"vectors={tuple(vectors.shape)}: this index has {known.shape[1]} dimensions. Embed by the same model."
            )

    # -- reading

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Ids (N,) and prepared vectors (N, D) of all items that have one, by id.

        Raises:
            DataError: a file of vectors is missing or damaged.
        """
        version = self.database.execute("PRAGMA data_version").fetchone()[0], self.database.total_changes
        if self._cache is None or self._cache[0] != version:
            rows = self.database.execute(
                "SELECT id, file, row FROM items WHERE file IS NOT NULL ORDER BY id"
            ).fetchall()
            files: dict[str, Tensor] = {}
            for name in dict.fromkeys(row[1] for row in rows):
                try:
                    files[name] = load_file(self.folder / name)["vectors"]
                except (OSError, SafetensorError, KeyError) as error:
                    raise DataError(f"{self.folder / name}: {error}. Make the index again: zoo index.") from None
            ends = torch.tensor([0, *(len(some) for some in files.values())]).cumsum(0).tolist()
            first = dict(zip(files, ends, strict=False))  # place of each file in the vectors of all
            places = torch.tensor([first[name] + row for _, name, row in rows], dtype=torch.int64)
            found = torch.cat(list(files.values()))[places] if rows else torch.zeros(0, 0)
            self._cache = version, torch.tensor([row[0] for row in rows], dtype=torch.int64), found
        return self._cache[1], self._cache[2]

    def nearest(self, query: Tensor, k: int = 10, where: Sequence[str] = (), among: Tensor | None = None) -> list[Hit]:
        """The k items of the highest similarity to a vector (D,), exactly; of equal ones, the lower id first.

        Args:
            query: vector.
            k: most items.
            where: filters.
            among: ids of the items to compare; None is all.
        """
        ids, scores = self._scores(query, where, among)
        order = nearest(scores, k)
        return self.hits_of(ids[order].tolist(), scores[order].tolist())

    def within(self, query: Tensor, least: float, where: Sequence[str] = ()) -> list[Hit]:
        """All items of at least this similarity to a vector (D,), the nearest first; see `similarities`."""
        ids, scores = self._scores(query, where)
        order = nearest(scores, len(scores))
        order = order[scores[order] >= least]
        return self.hits_of(ids[order].tolist(), scores[order].tolist())

    def _scores(self, query: Tensor, where: Sequence[str], among: Tensor | None = None) -> tuple[Tensor, Tensor]:
        ids, vectors = self.vectors()
        if len(vectors) and query.shape != vectors.shape[1:]:
            raise DataError(
                f"query={tuple(query.shape)}: this index has vectors ({vectors.shape[1]},). Embed by the same model."
            )
        if among is not None:
            asked = among.unique()
            place = torch.searchsorted(ids, asked).clamp(max=max(len(ids) - 1, 0))
            place = place[ids[place] == asked] if len(ids) else place[:0]
            ids, vectors = ids[place], vectors[place]
        if where and len(ids):
            allowed = torch.tensor([row[0] for row in self.database.execute(*self._select("id", where))] or [-1])
            keep = torch.isin(ids, allowed)
            ids, vectors = ids[keep], vectors[keep]
        if not len(ids):
            return ids, torch.zeros(0)
        return ids, similarities(prepared(query, self.similarity)[None], vectors, self.similarity)[0]

    def search_text(self, query: str, k: int = 10, where: Sequence[str] = ()) -> list[Hit]:
        """The k items of the highest BM25 for the words of a query (Robertson et al. 1994; k1 1.2, b 0.75).

        An item needs one of the words. A word's weight is log((N - n + 0.5) / (n + 0.5)), at least 1e-6.
        """
        words = [word for word in "".join(c if c.isalnum() else " " for c in query).split() if word]
        if not words:
            return []
        match = " OR ".join(f'"{word}"' for word in words)
        condition, values = self._condition(where)
        rows = self.database.execute(
            f"SELECT texts.rowid, -bm25(texts) AS score FROM texts JOIN items ON items.id = texts.rowid "
            f"WHERE texts MATCH ?{condition} ORDER BY score DESC, texts.rowid LIMIT ?",
            (match, *values, k),
        ).fetchall()
        return self.hits_of([row[0] for row in rows], [row[1] for row in rows])

    def fuse(
        self,
        query: str,
        vector: Tensor,
        k: int = 10,
        where: Sequence[str] = (),
        by_vector: Callable[[Tensor, int, Sequence[str]], list[Hit]] | None = None,
    ) -> list[Hit]:
        """The k best of words and vector together, by reciprocal rank fusion (Cormack et al. 2009).

        Args:
            query: words.
            vector: (D,).
            k: most items.
            where: filters.
            by_vector: search for a vector; None is `nearest`.
        """
        scores: dict[int, float] = {}
        near = (by_vector or self.nearest)(vector, CANDIDATES, where)
        for hits in (self.search_text(query, CANDIDATES, where), near):
            for rank, hit in enumerate(hits, 1):
                scores[hit.id] = scores.get(hit.id, 0.0) + 1 / (FUSION + rank)
        best = sorted(scores, key=lambda i: (-scores[i], i))[:k]
        return self.hits_of(best, [scores[i] for i in best])

    def hits_of(self, ids: Sequence[int], scores: Sequence[float]) -> list[Hit]:
        """Read items by id, with their scores."""
        rows = dict[int, tuple[str, str]]()
        for first in range(0, len(ids), PART):
            some = ids[first : first + PART]
            rows |= {
                number: (metadata, text)
                for number, metadata, text in self.database.execute(
                    f"SELECT id, metadata, text FROM items LEFT JOIN texts ON texts.rowid = items.id "
                    f"WHERE id IN ({','.join('?' * len(some))})",
                    some,
                )
            }
        return [
            Hit(number, score, rows[number][1] or "", json.loads(rows[number][0]))
            for number, score in zip(ids, scores, strict=True)
        ]

    def _select(self, column: str, where: Sequence[str]) -> tuple[str, list[Any]]:
        condition, values = self._condition(where)
        return f"SELECT {column} FROM items WHERE 1{condition}", values

    def _condition(self, where: Sequence[str]) -> tuple[str, list[Any]]:
        """SQL of filters such as `year>=1990`, `name=gan`; values are parameters, and numbers if they read as such.

        Raises:
            ConfigError: not a filter.
        """
        text, values = "", list[Any]()
        for one in where:
            found = next((op for op in OPERATORS if op in one), None)
            key, _, value = one.partition(found or "=")
            if found is None or not key.strip().replace("_", "").isalnum():
                raise ConfigError(f"where={one}: not a filter. Write KEY=VALUE, or one of {' '.join(OPERATORS)}.")
            text += f" AND json_extract(items.metadata, ?) {found} ?"
            values += [f"$.{key.strip()}", _plain(value.strip())]
        return text, values


def _plain(value: str) -> Any:
    """A number, if a text reads as one."""
    try:
        parsed = json.loads(value)
    except ValueError:
        return value
    return parsed if isinstance(parsed, (int, float)) else value
