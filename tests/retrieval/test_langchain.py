"""An index as LangChain's vector store and retriever: LangChain's own calls, against exact search by definition."""

import asyncio
import subprocess
import sys

import numpy as np
import pytest
import torch

import zoo

pytest.importorskip("langchain_core")
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from zoo.retrieval.build import build_index
from zoo.retrieval.index import Index
from zoo.retrieval.langchain import ZooEmbeddings, ZooRetriever, ZooVectorStore

TEXTS = [
    "the cat sat on the mat", "the dog sat on the log", "cats and dogs are animals", "a black cat and a white cat",
    "a river has two banks", "the bank lends money",
]  # fmt: skip
METADATA = [{"number": i, "even": i % 2 == 0, "name": "ab"[i % 2]} for i in range(len(TEXTS))]


@pytest.fixture
def fake():
    return DeterministicFakeEmbedding(size=8)


@pytest.fixture
def store(tmp_path, fake):
    return ZooVectorStore.from_texts(TEXTS, fake, METADATA, ids=list("uvwxyz"), folder=tmp_path / "ix")


def test_results_are_those_of_langchain_itself(store, fake):
    other = InMemoryVectorStore(fake)
    other.add_texts(TEXTS, METADATA, ids=list("uvwxyz"))
    for query in ("a cat", "money", TEXTS[4]):
        mine, theirs = store.similarity_search_with_score(query, 6), other.similarity_search_with_score(query, 6)
        assert [d for d, _ in mine] == [d for d, _ in theirs]
        assert [s for _, s in mine] == pytest.approx([s for _, s in theirs], abs=1e-6)
        mmr = {"k": 3, "fetch_k": 5, "lambda_mult": 0.3}
        assert store.max_marginal_relevance_search(query, **mmr) == other.max_marginal_relevance_search(query, **mmr)
    assert store.similarity_search(TEXTS[4], 1)[0].page_content == TEXTS[4]
    assert store.get_by_ids(["z", "u", "none"]) == other.get_by_ids(["z", "u", "none"])


def test_filters(store):
    assert {d.id for d in store.similarity_search("cat", 6, filter={"even": True, "name": "a"})} == {"u", "w", "y"}
    assert {d.id for d in store.similarity_search("cat", 6, where=["number>=4"])} == {"y", "z"}
    assert store.similarity_search("cat", 6, filter={"name": "c"}) == []
    assert len(store.similarity_search("cat", 6)) == 6, "control: all without a filter"


def test_documents_survive_and_are_replaced(store, fake, tmp_path):
    assert store.add_texts(["new"], ids=["u"]) == ["u"]
    other = ZooVectorStore(tmp_path / "ix", fake)
    assert len(Index(tmp_path / "ix")) == 6
    assert other.get_by_ids(["u"]) == [Document(id="u", page_content="new", metadata={})]
    assert store.add_texts(["one", "two"], ids=["k", "k"]) == ["k", "k"]
    assert [d.page_content for d in store.get_by_ids(["k"])] == ["two"], "the last one"
    (made,) = store.add_documents([Document(page_content="without id")])
    assert store.get_by_ids([made])[0].page_content == "without id"
    assert store.delete(["k", made, "none"])
    assert len(Index(tmp_path / "ix")) == 6
    assert store.delete()
    assert store.similarity_search("cat") == []
    assert store.add_texts([]) == []
    with pytest.raises(ValueError, match="metadatas: 1 for 2 texts"):
        store.add_texts(["a", "b"], [{}])


@pytest.mark.parametrize("similarity", ["cosine", "euclidean", "inner_product"])
def test_relevance_is_a_growing_function_of_similarity(tmp_path, fake, similarity):
    store = ZooVectorStore.from_texts(TEXTS, fake, folder=tmp_path / "ix", similarity=similarity)
    scores = [s for _, s in store.similarity_search_with_relevance_scores(TEXTS[0], 6)]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= s <= 1 for s in scores)
    assert len(set(scores)) == 6
    if similarity != "inner_product":
        assert scores[0] == pytest.approx(1, abs=1e-3)
    few = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": scores[2]})
    assert len(few.invoke(TEXTS[0])) == 3


def test_from_other_threads_and_asynchronously(store):
    async def both():
        return await asyncio.gather(*(store.asimilarity_search(text, 1) for text in TEXTS))

    assert [found[0].page_content for found in asyncio.run(both())] == TEXTS
    assert [found[0].page_content for found in store.as_retriever(search_kwargs={"k": 1}).batch(TEXTS)] == TEXTS


def test_retriever_over_an_index_of_files_in_a_chain(tmp_path):
    for i, text in enumerate(TEXTS):
        (tmp_path / f"{i}.txt").write_text(text)
    build_index(tmp_path / "ix", files=sorted(tmp_path.glob("*.txt")))
    retriever = ZooRetriever(folder=tmp_path / "ix", k=2)
    (best, *_) = found = retriever.invoke("river banks")
    assert len(found) <= 2
    assert best.page_content == TEXTS[4]
    assert best.metadata["source"].endswith("4.txt")
    prompt = ChatPromptTemplate.from_template("{context}\nQuestion: {question}")
    chain = {"context": retriever, "question": RunnablePassthrough()} | prompt | RunnableLambda(lambda p: p.to_string())
    assert TEXTS[5] in chain.invoke("who lends money?")
    assert asyncio.run(retriever.ainvoke("money"))[0].page_content == TEXTS[5]
    assert len(retriever.invoke("the cat and the dog", k=4)) == 4
    with pytest.raises(zoo.ConfigError, match="made without a model"):
        ZooVectorStore(tmp_path / "ix")


def test_a_model_of_the_zoo_embeds(tmp_path):
    zoo.fit("clip", "captioned_digits", folder=tmp_path / "run", max_steps=3, progress=False)
    embeddings = ZooEmbeddings(tmp_path / "run")
    store = ZooVectorStore.from_texts(["three", "a seven"], embeddings, folder=tmp_path / "ix")
    assert store.similarity_search("a seven", 1)[0].page_content == "a seven"
    again = ZooVectorStore(tmp_path / "ix")  # the model is known
    assert again.similarity_search_with_score("three", 1)[0][1] == pytest.approx(1, abs=1e-5)
    assert np.allclose(embeddings.embed_documents(["three"]), Index(tmp_path / "ix").vectors()[1][:1], atol=1e-6)
    assert ZooRetriever(folder=tmp_path / "ix", k=1).invoke("seven")[0].page_content == "a seven"
    Index(tmp_path / "ix").database.execute("UPDATE about SET value = 'of other weights' WHERE key = 'sha256'")
    with pytest.raises(zoo.ConfigError, match=r"another model than that of the index .*Use the same one"):
        ZooVectorStore(tmp_path / "ix", embeddings)


def test_refusals(tmp_path, fake):
    with pytest.raises(zoo.ConfigError, match=r"folder=.*ix: no index, and no embedding"):
        ZooVectorStore(tmp_path / "ix")
    with pytest.raises(zoo.ConfigError, match="folder: not given"):
        ZooVectorStore.from_texts(TEXTS, fake)
    store = ZooVectorStore.from_texts(TEXTS, fake, folder=tmp_path / "ix")
    with pytest.raises(zoo.DataError, match=r"this index has vectors \(8,\)"):
        store.similarity_search_by_vector(torch.ones(3).tolist())


def test_without_langchain_the_extra_is_named():
    code = "import sys; import zoo.retrieval.index, zoo.retrieval.build; assert 'langchain_core' not in sys.modules\n"
    code += "sys.modules['langchain_core'] = None; import zoo.retrieval.langchain"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "pip install 'generative-zoo[langchain]'" in done.stderr
