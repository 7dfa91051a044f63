"""Chats over an index of passages, by the `openai` client: the passages reach the model, and are cited."""

import asyncio
from pathlib import Path

import httpx2 as httpx
import openai
import pytest
import torch

import zoo
from tests.serve.servers import SMALL, is_error, masked_model, post, running
from tests.serve.test_command import saved
from zoo.core.errors import ConfigError
from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.byte import Byte
from zoo.retrieval.answer import fill
from zoo.retrieval.build import build_index, search
from zoo.retrieval.index import Index
from zoo.serve.pool import Source
from zoo.serve.retriever import CHAT, Retriever

CONTEXT = 256
FACTS = {
    "birds.txt": "A penguin swims under water.\n\nAn ostrich runs on land.",
    "cars.txt": "A lorry carries sand.",
}
QUESTION = "What does a penguin do under water?"


def talker():
    torch.manual_seed(0)
    tokenizer = Byte()
    spec = zoo.DataSpec(Tokens(CONTEXT, tokenizer.vocab_size, dumps(tokenizer)), name="letters")
    model = zoo.create_model("language_model", data=spec, backbone={"name": "transformer", **SMALL})
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(std=0.4)
    return model.eval()


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    for name, text in FACTS.items():
        (folder / name).write_text(text)
    build_index(folder / "made", files=[folder / name for name in FACTS], size=6)
    return folder / "made"


@pytest.fixture(scope="module")
def server(index):
    with running({"talker": Source("talker", talker, "Q: {text}\nA:")}, index=index) as found:
        yield found


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def chat(client, **more):
    asked = {"model": "talker", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 8, "seed": 3}
    return client.chat.completions.create(**asked | more)


def generated(prompt: str) -> str:
    return talker().generate([prompt], max_new_tokens=8, seed=3)[0].text


def test_an_answer_is_that_of_the_prompt_with_passages(client, index):
    done = chat(client)
    hits = search(Index(index), QUESTION, 4)
    assert hits[0].text == "A penguin swims under water."
    assert done.choices[0].message.content == generated(f"Q: {fill(CHAT, QUESTION, hits)}\nA:")
    assert [(each["number"], each["text"]) for each in done.zoo_sources] == [
        (i, hit.text) for i, hit in enumerate(hits, 1)
    ]
    assert done.zoo_sources[0]["metadata"] == {"source": "birds.txt", "begin": 0, "end": 28}, "no folder is shown"


def test_without_passages_the_answer_is_another(client):
    """Negative control of the test above."""
    done = chat(client, extra_body={"passages": 0})
    assert done.zoo_sources == []
    assert done.choices[0].message.content == generated(f"Q: {QUESTION}\nA:") != chat(client).choices[0].message.content


def test_a_stream_begins_with_the_sources(client):
    first, *rest = list(chat(client, stream=True))
    assert first.zoo_sources[0]["text"] == "A penguin swims under water."
    assert not any(hasattr(chunk, "zoo_sources") for chunk in rest)
    text = "".join(choice.delta.content or "" for chunk in rest for choice in chunk.choices)
    assert text == chat(client).choices[0].message.content


def test_passages_that_do_not_fit_are_left_out(client, index):
    """The prompt and the answer stay within the context; the best passages stay longest."""
    question = "penguin ostrich lorry water sand " * 6
    hits = search(Index(index), question, 4)
    assert len(hits) == 3
    few = chat(client, messages=[{"role": "user", "content": question}])
    assert [each["text"] for each in few.zoo_sources] == [hits[0].text]
    assert few.usage.prompt_tokens + 8 <= CONTEXT
    none = chat(client, messages=[{"role": "user", "content": "penguin " * 29}])
    assert none.zoo_sources == []


def test_a_request_says_how_many(client, server):
    assert len(chat(client, extra_body={"passages": 1}).zoo_sources) == 1
    body = {"model": "talker", "messages": [{"role": "user", "content": "x"}], "passages": 21}
    assert is_error(post(f"{server.url}/v1/chat/completions", json=body), 400)["param"] == "passages"


def test_a_server_without_an_index_has_no_sources():
    with running({"talker": talker}) as other, httpx.Client(base_url=other.url, timeout=60) as plain:
        body = {"model": "talker", "messages": [{"role": "user", "content": "penguin"}], "max_tokens": 2}
        assert "zoo_sources" not in plain.post("/v1/chat/completions", json=body).json()


def test_vectors_are_searched_too(tmp_path: Path):
    run = saved(masked_model(), tmp_path / "bert")
    (tmp_path / "text.txt").write_text("\n\n".join(FACTS.values()))
    made = build_index(tmp_path / "index", run, files=[tmp_path / "text.txt"], size=6)
    found = asyncio.run(Retriever(tmp_path / "index").search("swims", 3))
    assert len(made.search_text("swims", 3)) == 1, "by words alone there is one"
    assert found == search(made, "swims", 3)
    assert len(found) == 3


def test_an_index_without_texts_is_refused(tmp_path: Path):
    Index.create(tmp_path / "empty")
    with pytest.raises(ConfigError, match="holds no texts"):
        Retriever(tmp_path / "empty")
    with pytest.raises(ConfigError, match="Make an index"):
        Retriever(tmp_path / "nothing")
