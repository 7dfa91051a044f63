"""Approximate search against the exact one."""

import pytest
import torch

import zoo
from zoo.retrieval.index import Index

pytest.importorskip("faiss")
from zoo.retrieval.approximate import Approximate  # after the check


def clusters(n, seed):
    g = torch.Generator().manual_seed(seed)
    centres = 4 * torch.randn(20, 16, generator=torch.Generator().manual_seed(9))
    return centres[torch.randint(0, 20, (n,), generator=g)] + torch.randn(n, 16, generator=g)


@pytest.fixture(params=["cosine", "euclidean", "inner_product"])
def index(request, tmp_path):
    made = Index.create(tmp_path / "ix", request.param)
    made.add(clusters(3000, 0), metadata=[{"even": i % 2} for i in range(3000)])
    return made


def recall(index, other):
    queries = clusters(20, 1)
    return sum(
        len({h.id for h in index.nearest(q)} & {h.id for h in other.nearest(q)}) for q in queries
    ) / (10 * len(queries))  # fmt: skip


def test_recall_grows_with_effort_up_to_exact(index):
    assert recall(index, Approximate(index, "flat")) == 1
    few, all_lists = Approximate(index, "ivf", 1), Approximate(index, "ivf", 10**6)
    assert recall(index, all_lists) == 1, "all lists are all vectors"
    assert 0.2 < recall(index, few) < 1, "control: one list is not"
    assert recall(index, Approximate(index, "hnsw", 128)) >= 0.95
    assert recall(index, Approximate(index, "pq")) > 0.3


def test_scores_are_exact_and_deleted_items_are_left_out(index):
    found = Approximate(index, "hnsw")
    query = clusters(1, 2)[0]
    exact = {hit.id: hit.score for hit in index.nearest(query, 3000)}
    hits = found.nearest(query, 5)
    assert [h.score for h in hits] == pytest.approx([exact[h.id] for h in hits])
    index.delete([hits[0].id])
    assert hits[0].id not in {h.id for h in found.nearest(query, 5)}
    assert {h.metadata["even"] for h in found.nearest(query, 5, ["even=1"])} == {1}
    found.save(index.folder / "vectors.faiss")
    assert (index.folder / "vectors.faiss").stat().st_size > 3000 * 16 * 4


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf", "pq"])
def test_what_is_kept_finds_the_same_and_later_items_too(index, kind):
    made = Approximate(index, kind, 5)
    made.keep()
    other = Index(index.folder)
    found = Approximate.open(other)
    queries = clusters(10, 1)
    assert (found.kind, found.effort) == (kind, 5)
    assert [found.nearest(q) for q in queries] == [made.nearest(q) for q in queries]
    later = 40 * torch.ones(1, 16)  # far from all others
    (new,) = index.add(later)
    assert found.nearest(later[0])[0] == index.nearest(later[0])[0]
    assert found.nearest(later[0])[0].id == new
    index.delete(range(1, 1001))
    index.compact()
    found = Approximate.open(Index(index.folder))
    assert {h.id for q in queries for h in found.nearest(q)}.isdisjoint(range(1, 1001))
    with pytest.raises(zoo.ZooError, match=r"query=\(3,\): this index has vectors \(16,\)"):
        found.nearest(torch.ones(3))


def test_damage_is_told_and_no_file_is_none(tmp_path):
    index = Index.create(tmp_path / "ix")
    assert Approximate.open(index) is None
    (tmp_path / "ix" / "approximate.safetensors").write_bytes(b"nothing")
    with pytest.raises(zoo.ZooError, match=r"approximate\.safetensors: .*Make it again: zoo index --kind"):
        Approximate.open(index)


def test_refusals(tmp_path):
    index = Index.create(tmp_path / "ix", "jaccard")
    index.add(torch.rand(4, 6))
    with pytest.raises(zoo.ZooError, match="jaccard"):
        Approximate(index)
    with pytest.raises(zoo.ZooError, match=r"kind=lsh: unknown\. Use flat, hnsw, ivf, pq"):
        Approximate(index, "lsh")
    other = Index.create(tmp_path / "other")
    other.add(torch.rand(4, 6))
    with pytest.raises(zoo.ZooError, match="multiple of 8"):
        Approximate(other, "pq")
