"""The index: exact search is a full sort, BM25 its formula, filters and deletions leave what they should."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import zoo
from zoo.retrieval.index import DATABASE, Hit, Index
from zoo.retrieval.similarity import SIMILARITIES, nearest, prepared, similarities

DOCUMENTS = [
    "the cat sat on the mat",
    "the dog sat on the log",
    "cats and dogs are animals",
    "a black cat and a white cat",
    "le chat noir",
]


def vectors(n=50, d=6, seed=0):
    return torch.randint(0, 4, (n, d), generator=torch.Generator().manual_seed(seed)).float()  # many ties


@pytest.fixture
def index(tmp_path):
    made = Index.create(tmp_path / "ix")
    made.add(vectors(), [f"item {i}" for i in range(50)], [{"year": 1950 + i, "kind": "ab"[i % 2]} for i in range(50)])
    return made


def by_definition(a, b, similarity):
    if similarity == "inner_product":
        return sum(p * q for p, q in zip(a, b, strict=True))
    if similarity == "cosine":
        norms = math.hypot(*a) * math.hypot(*b)
        return by_definition(a, b, "inner_product") / norms if norms else 0.0
    if similarity == "euclidean":
        return -math.dist(a, b)
    either = sum(map(max, a, b))
    return sum(map(min, a, b)) / either if either else 1.0


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_exact_search_is_a_full_sort(tmp_path, similarity):
    index = Index.create(tmp_path / "ix", similarity)
    ids = index.add(vectors())
    for query in vectors(4, seed=1):
        scores = [by_definition(query.tolist(), v.tolist(), similarity) for v in vectors()]
        found = index.nearest(query, 12)
        everything = similarities(prepared(query, similarity)[None], prepared(vectors(), similarity), similarity)[0]
        order = sorted(range(50), key=lambda i: (-everything[i].item(), i))
        assert [hit.id for hit in found] == [ids[i] for i in order[:12]]
        assert [hit.score for hit in found] == pytest.approx(sorted(scores, reverse=True)[:12], abs=1e-5)
        least = found[7].score
        inside = index.within(query, least)
        assert {hit.id for hit in inside} == {ids[i] for i in range(50) if everything[i] >= least}
        assert len(inside) >= 8


def test_ties_go_to_the_lower_index():
    scores = torch.tensor([1.0, 3, 2, 3, 3, 2])
    assert nearest(scores, 2).tolist() == [1, 3]
    assert nearest(scores, 5).tolist() == [1, 3, 4, 2, 5]
    assert nearest(scores, 99).tolist() == [1, 3, 4, 2, 5, 0]


def test_similarities_agree_where_they_must():
    """Of vectors of length one, all three orders are equal; control: of longer ones they differ."""
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(x, dim=1)
    kinds = ("cosine", "euclidean", "inner_product")
    orders = [nearest(similarities(unit[:1], unit, kind)[0], 30).tolist() for kind in kinds]
    assert orders[0] == orders[1] == orders[2]
    raw = [nearest(similarities(x[:1], x, kind)[0], 30).tolist() for kind in kinds[1:]]
    assert raw[0] != raw[1]


def bm25(query, documents, k1=1.2, b=0.75):
    texts = [d.split() for d in documents]
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for word in query.split():
            n = sum(word in t for t in texts)
            weight = max(math.log((len(texts) - n + 0.5) / (n + 0.5)), 1e-6)
            f = text.count(word)
            score += weight * f * (k1 + 1) / (f + k1 * (1 - b + b * len(text) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize("query", ["cat", "sat mat", "black cat", "chat"])
def test_bm25_is_the_formula(tmp_path, query):
    index = Index.create(tmp_path / "ix")
    ids = index.add(texts=DOCUMENTS)
    expected = dict(zip(ids, bm25(query, DOCUMENTS), strict=True))
    found = index.search_text(query)
    assert {hit.id for hit in found} == {i for i, score in expected.items() if score > 0}
    for hit in found:
        assert hit.score == pytest.approx(expected[hit.id], rel=1e-6)
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    wrong = dict(zip(ids, bm25(query, DOCUMENTS, b=0.0), strict=True))
    assert any(abs(hit.score - wrong[hit.id]) > 1e-3 for hit in found), "control: without lengths of documents"


def test_query_has_no_syntax_and_accents_do_not_matter(tmp_path):
    index = Index.create(tmp_path / "ix")
    index.add(texts=["café NEAR the river", "something else"])
    for query in ('cafe"', "cafe* OR (", "NEAR/2 cafe", "text:cafe -river"):
        assert [hit.id for hit in index.search_text(query)] == [1]
    assert index.search_text("...") == []


def test_filters(index):
    query = vectors(1, seed=3)[0]
    for where, fits in {
        ("year>=1990",): lambda i: i >= 40,
        ("year>=1960", "year<1970", "kind=a"): lambda i: 10 <= i < 20 and i % 2 == 0,
        ("kind!=a",): lambda i: i % 2 == 1,
        ("kind=zzz",): lambda i: False,
    }.items():
        wanted = {i + 1 for i in range(50) if fits(i)}
        assert {hit.id for hit in index.nearest(query, 99, where)} == wanted
        assert {hit.id for hit in index.search_text("item", 99, where)} == wanted
    for bad in ("year", "year; DROP TABLE items=1", "a'b=1"):
        with pytest.raises(zoo.ZooError, match="not a filter"):
            index.nearest(query, 3, [bad])
    assert len(index) == 50


def test_deletion_and_compaction_leave_the_same_answers(index):
    query = vectors(1, seed=3)[0]
    before = index.nearest(query, 50)
    gone = [before[0].id, before[5].id]
    assert index.delete(gone, ["year<1955"]) == 2 + 5 - len({*gone} & set(range(1, 6)))
    kept = [hit for hit in before if hit.id not in gone and hit.metadata["year"] >= 1955]
    assert index.nearest(query, 50) == kept
    index.add(vectors(3, seed=9), ["new"] * 3)
    answers = index.nearest(query, 99)
    files = list(index.folder.glob("*.safetensors"))
    index.compact()
    assert index.nearest(query, 99) == answers
    assert Index(index.folder).nearest(query, 99) == answers
    after = list(index.folder.glob("*.safetensors"))
    assert len(files) == 2
    assert len(after) == 1
    assert index.add(vectors(1)) == [54], "ids are never used twice"


def test_fusion_is_the_sum_of_reciprocal_ranks(index):
    query = vectors(1, seed=3)[0]
    by_vector, by_words = index.nearest(query, 100), index.search_text("item 7", 100)
    expected = {}
    for hits in (by_vector, by_words):
        for rank, hit in enumerate(hits, 1):
            expected[hit.id] = expected.get(hit.id, 0) + 1 / (60 + rank)
    found = index.fuse("item 7", query, 5)
    assert [hit.score for hit in found] == pytest.approx(sorted(expected.values(), reverse=True)[:5])
    assert found[0].id == max(expected, key=expected.__getitem__)


def test_another_process_sees_what_was_added(index):
    other = Index(index.folder)
    assert len(other.nearest(vectors(1)[0], 99)) == 50
    index.add(vectors(2))
    assert len(other.nearest(vectors(1)[0], 99)) == 52


WRITER = """
import sys, torch
from zoo.retrieval.index import Index
index = Index(sys.argv[1])
print("ready", flush=True)
while True:
    index.add(torch.ones(20, 6), ["text"] * 20, [{"batch": len(index) // 20}] * 20)
    if len(index) % 100 == 0:
        index.delete(range(1, 11))
        index.compact()
        index.add(torch.ones(10, 6), ["text"] * 10)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_writer_leaves_whole_additions(tmp_path):
    """A process that adds, deletes and compacts is killed at several moments; the index stays whole."""
    folder = tmp_path / "ix"
    Index.create(folder)
    sizes = []
    for wait in (0.02, 0.1, 0.25):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        index = Index(folder)
        assert index.database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        ids, found = index.vectors()
        assert len(ids) == len(index)
        assert len(found) == 0 or found.shape == (len(ids), 6)
        assert len(index.search_text("text", 10**6)) == len(index)
        assert len(index) % 10 == 0, "never a part of one call"
        sizes.append(len(index))
    assert max(sizes) > 0
    index.compact()
    assert len(list(folder.glob("*.safetensors"))) == 1
    assert len(Index(folder).nearest(torch.ones(6), 10**6)) == len(index)


def test_a_full_disk_leaves_the_index_as_it_was(index):
    pages = index.database.execute("PRAGMA page_count").fetchone()[0]
    index.database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(zoo.ZooError, match=r"index=.*full. Check the disk and the folder, then repeat"):
        index.add(None, ["word " * 1000] * 100)
    assert len(index) == 50
    index.database.execute("PRAGMA max_page_count = 100000")
    assert len(index.add(None, ["word " * 1000] * 100)) == 100


def test_an_index_that_could_not_be_made_is_made_again(tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("zoo.retrieval.index.SCHEMA", "CREATE nonsense")
        with pytest.raises(zoo.ZooError, match="then repeat"):
            Index.create(tmp_path / "new")
    assert len(Index.create(tmp_path / "new")) == 0


def test_refusals(tmp_path, index):
    with pytest.raises(zoo.ZooError, match="dimensions"):
        index.add(torch.ones(2, 5))
    with pytest.raises(zoo.ZooError, match="not finite"):
        index.add(torch.full((1, 6), math.nan))
    with pytest.raises(zoo.ZooError, match="different numbers"):
        index.add(torch.ones(2, 6), ["one text"])
    with pytest.raises(zoo.ZooError, match="query"):
        index.nearest(torch.ones(7))
    with pytest.raises(zoo.ZooError, match="not empty"):
        Index.create(index.folder)
    with pytest.raises(zoo.ZooError, match="zoo index"):
        Index(tmp_path)
    with pytest.raises(zoo.ZooError, match="unknown"):
        Index.create(tmp_path / "new", "hamming")
    (tmp_path / DATABASE).write_bytes(b"no database" * 100)
    with pytest.raises(zoo.ZooError, match="damaged"):
        Index(tmp_path)
    next(index.folder.glob("*.safetensors")).write_bytes(b"broken")
    with pytest.raises(zoo.ZooError, match="again"):
        Index(index.folder).nearest(torch.ones(6))
    assert Hit(1, 0.5) == Hit(1, 0.5, "", {})
