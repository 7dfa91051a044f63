"""Feedback: stored beside its request, exported as preferences."""

import json
import sqlite3

import httpx2 as httpx
import pytest

import zoo
from tests.serve.servers import is_error, language_model, running
from zoo.cli.feedback import feedback_command
from zoo.core.errors import ConfigError
from zoo.serve import feedback
from zoo.serve.feedback import FeedbackStore, prompt_of


@pytest.fixture
def store(tmp_path) -> FeedbackStore:
    return FeedbackStore(tmp_path / "feedback.sqlite")


def rate(store: FeedbackStore, prompt: str, answer: str, rating: int) -> int:
    return store.add("m", rating, "", {"prompt": prompt}, answer)


def test_entries_come_back_in_order(store):
    request = {"prompt": "a", "seed": 3, "options": {"x": [1, None]}}
    assert store.add("m", 1, "it's; DROP TABLE feedback", request, "b\n'") == 1
    assert store.add("n", -1, "", {}, "") == 2
    first, second = FeedbackStore(store.path).entries()
    assert first.pop("time").endswith("Z")
    assert first == {
        "id": 1, "model": "m", "rating": 1, "note": "it's; DROP TABLE feedback", "request": request, "answer": "b\n'"
    }  # fmt: skip
    assert (second["id"], second["rating"]) == (2, -1)


def test_pairs_are_those_of_one_prompt(store):
    for prompt, answer, rating in [
        ("p", "good", 1), ("p", "good", 1), ("p", "fine", 1), ("p", "bad", -1), ("p", "both", 1), ("p", "both", -1),
        ("q", "only good", 1), ("r", "only bad", -1), ("p", "", -1),
    ]:  # fmt: skip
        rate(store, prompt, answer, rating)
    store.add("m", -1, "", {"seed": 1}, "without a prompt")
    assert list(store.preferences()) == [
        {"prompt": "p", "chosen": "good", "rejected": "bad"},
        {"prompt": "p", "chosen": "fine", "rejected": "bad"},
    ]


@pytest.mark.parametrize(
    ("request_", "prompt"),
    [
        ({"prompt": "a"}, "a"),
        ({"prompt": ["a"]}, None),
        ({"messages": [{"role": "user", "content": "hi"}]}, "hi"),
        ({"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]}, "system: x\nuser: y"),
        ({"messages": []}, None),
        ({"messages": "a"}, None),
        ({}, None),
    ],
)
def test_prompts_of_requests(request_, prompt):
    assert prompt_of(request_) == prompt


def test_the_export_is_data_for_preferences(store, tmp_path, capsys):
    for i in range(20):
        rate(store, f"prompt {i}: ", "yes", 1)
        rate(store, f"prompt {i}: ", "no", -1)
    feedback_command(store.path)
    lines = capsys.readouterr().out
    file = tmp_path / "preferences.jsonl"
    file.write_text(lines)
    data = zoo.create_data("preferences", path=str(file), tokenizer="byte", batch_size=4)
    assert sum(map(len, data.rows())) == 20
    feedback_command(store.path, entries=True)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["id"] for each in found] == list(range(1, 41))
    with pytest.raises(ConfigError, match="no such file"):
        feedback_command(tmp_path / "nothing")


def test_a_full_file_takes_no_more(store, monkeypatch):
    monkeypatch.setattr(feedback, "MOST", 2)
    assert [rate(store, "p", "a", 1) for _ in range(3)] == [1, 2, 0]
    assert len(store.entries()) == 2


def test_another_file_is_refused(tmp_path):
    file = tmp_path / "a.sqlite"
    file.write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match="not a SQLite file"):
        FeedbackStore(file)
    with pytest.raises(ConfigError, match="cannot be written"):
        FeedbackStore(tmp_path / "missing" / "a.sqlite")


def test_requests_store_feedback(tmp_path):
    path = tmp_path / "f.sqlite"
    good = {"model": "letters", "rating": 1, "note": "well", "request": {"prompt": "a"}, "answer": "b"}
    with (
        running({"letters": language_model}, feedback=path) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        assert client.get("/api/models").json()["feedback"] is True
        assert client.post("/api/feedback", json=good).json() == {"id": 1}
        assert is_error(client.post("/api/feedback", json=good | {"model": "other"}), 404)
        for wrong in ({"rating": 0}, {"rating": True}, {"note": "a" * 2001}, {"request": "a"}, {"file": "x"}):
            is_error(client.post("/api/feedback", json=good | wrong), 400)
        long = {"request": {"prompt": "a" * 200_001}}
        assert is_error(client.post("/api/feedback", json=good | long), 400)["code"] == "too_long"
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT model, rating, note, request, answer FROM feedback").fetchall() == [
            ("letters", 1, "well", '{"prompt": "a"}', "b")
        ]


def test_a_server_without_a_file_stores_none(client):
    assert client.get("/api/models").json()["feedback"] is False
    answer = client.post("/api/feedback", json={"model": "letters", "rating": 1})
    assert is_error(answer, 404)["code"] == "no_feedback"
