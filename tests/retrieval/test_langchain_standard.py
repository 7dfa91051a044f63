"""LangChain's standard tests of vector stores and retrievers: `pip install langchain-tests`, then run this file."""

from pathlib import Path

import pytest

pytest.importorskip("langchain_tests")
pytest.importorskip("pytest_asyncio")
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from zoo.retrieval.build import build_index
from zoo.retrieval.langchain import ZooRetriever, ZooVectorStore

pytestmark = pytest.mark.asyncio


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path):
        return ZooVectorStore(tmp_path / "ix", self.get_embeddings())


class TestRetriever(RetrieversIntegrationTests):
    folder: Path

    @pytest.fixture(autouse=True)
    def an_index(self, tmp_path):
        for i in range(5):
            (tmp_path / f"{i}.txt").write_text(f"a text of words, number {i}")
        build_index(tmp_path / "ix", files=sorted(tmp_path.glob("*.txt")))
        type(self).folder = tmp_path / "ix"

    @property
    def retriever_constructor(self):
        return ZooRetriever

    @property
    def retriever_constructor_params(self):
        return {"folder": self.folder}

    @property
    def retriever_query_example(self):
        return "words of a text"
