"""`langchain-openai`, unmodified: what it sends beyond the `openai` package must be accepted, and change nothing."""

import asyncio

import pytest
import torch
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

from tests.serve.servers import language_model, masked_model


@pytest.fixture
def address(server):
    return {"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0}


def test_a_language_model_and_its_stream(address):
    model = OpenAI(model="letters", temperature=0, max_tokens=12, **address)
    (wanted,) = language_model().generate("hello", max_new_tokens=12, temperature=0)
    assert model.invoke("hello") == wanted.text
    assert "".join(model.stream("hello")) == wanted.text
    assert model.batch(["hello", "hello"]) == [wanted.text] * 2
    assert asyncio.run(model.ainvoke("hello")) == wanted.text
    assert model.invoke("hello", stop=[wanted.text[3]]) == wanted.text[: wanted.text.index(wanted.text[3])]


def test_a_chat_model_and_its_stream(address):
    model = ChatOpenAI(model="letters", temperature=0, max_tokens=12, **address)
    messages = [("system", "be kind"), ("human", "hello")]
    (wanted,) = language_model().generate(
        "system:\nbe kind\nuser:\nhello\nassistant:\n", max_new_tokens=12, temperature=0, stop=["\n"]
    )
    answer = model.invoke(messages)
    assert answer.content == wanted.text
    assert answer.usage_metadata["output_tokens"] == len(wanted.tokens)
    assert answer.response_metadata["finish_reason"] in ("stop", "length")
    assert "".join(chunk.content for chunk in model.stream(messages)) == wanted.text


def test_embeddings(address):
    """Its own tokenizer would be downloaded, so the check of lengths is off."""
    model = OpenAIEmbeddings(model="masks", check_embedding_ctx_length=False, **address)
    with torch.no_grad():
        wanted = masked_model().embed(["one", "another"]).tolist()
    for found, row in zip(model.embed_documents(["one", "another"]), wanted, strict=True):
        assert found == pytest.approx(row, abs=1e-5)
    assert model.embed_query("one") == pytest.approx(wanted[0], abs=1e-5)


def test_an_unknown_model_is_an_error(address):
    with pytest.raises(Exception, match="did you mean 'letters'"):
        OpenAI(model="leters", **address).invoke("a")
