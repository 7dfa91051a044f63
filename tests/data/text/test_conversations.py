"""Formats of instruction data: each is recognised, and becomes the chat that it describes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.core.errors import DataError
from zoo.data.text.conversations import Chat, instruction_chat, label_of, preference_chats, recognise
from zoo.data.text.instructions import Preferences

ASK = {"role": "user", "content": "q"}
GOOD, BAD = {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}
SYSTEM = {"role": "system", "content": "s"}
CHATS: dict[str, tuple[str, dict[str, Any], Chat]] = {
    "openai": ("OpenAI messages", {"messages": [SYSTEM, ASK, GOOD]}, Chat([SYSTEM, ASK, GOOD], [2])),
    "openai, a weight": ("OpenAI messages", {"messages": [ASK, BAD | {"weight": 0}, ASK, GOOD | {"weight": 1}]},
                         Chat([ASK, BAD, ASK, GOOD], [3])),
    "openai, parts": ("OpenAI messages", {"messages": [
        {"role": "developer", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "q"}]}, GOOD]}, Chat([SYSTEM, ASK, GOOD], [2])),
    "sharegpt": ("ShareGPT conversations", {"system": "s", "conversations": [
        {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, {"from": "human", "value": "q"},
        {"from": "gpt", "value": "b"}]}, Chat([SYSTEM, ASK, GOOD, ASK, BAD], [2, 4])),
    "alpaca": ("Alpaca instructions", {"instruction": "add", "input": "1 1", "output": "a"},
               Chat([{"role": "user", "content": "add\n1 1"}, GOOD], [1])),
    "alpaca without input": ("Alpaca instructions", {"instruction": "q", "input": "", "output": "a"},
                             Chat([ASK, GOOD], [1])),
    "prompt and completion": ("prompts and answers as messages", {"prompt": [ASK, BAD, ASK], "completion": [GOOD]},
                              Chat([ASK, BAD, ASK, GOOD], [3])),
    "a table": ("OpenAI messages", {"messages": json.dumps([ASK, GOOD])}, Chat([ASK, GOOD], [1])),
    "an object of lists": ("OpenAI messages", {"messages": {"role": ["user", "assistant"], "content": ["q", "a"]}},
                           Chat([ASK, GOOD], [1])),
}  # fmt: skip


@pytest.mark.parametrize("name", CHATS)
def test_instructions(name: str) -> None:
    shown, row, chat = CHATS[name]
    found = recognise([row], "instructions", False)
    assert (found.name, found.texts) == (shown, None)
    assert instruction_chat(row, "line 1") == chat


PAIRS: dict[str, tuple[dict[str, Any], tuple[Chat, Chat]]] = {
    "no prompt": ({"chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, (Chat([ASK, GOOD], [1]), Chat([ASK, BAD], [1]))),
    "prompt": ({"prompt": [SYSTEM, ASK], "chosen": [GOOD], "rejected": [BAD]},
               (Chat([SYSTEM, ASK, GOOD], [2]), Chat([SYSTEM, ASK, BAD], [2]))),
    "prompt as text": ({"prompt": "q", "chosen": [GOOD], "rejected": [BAD]},
                       (Chat([ASK, GOOD], [1]), Chat([ASK, BAD], [1]))),
    "prompt twice": ({"prompt": "q", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
                     (Chat([ASK, GOOD], [1]), Chat([ASK, BAD], [1]))),
    "history in common": ({"chosen": [ASK, GOOD, ASK, GOOD], "rejected": [ASK, GOOD, ASK, BAD]},
                          (Chat([ASK, GOOD, ASK, GOOD], [3]), Chat([ASK, GOOD, ASK, BAD], [3]))),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_preferences(name: str) -> None:
    row, chats = PAIRS[name]
    assert recognise([row], "preferences", True).texts is None
    assert preference_chats(row, "line 1") == chats


def test_whole_texts_are_fields() -> None:
    for answer in ("response", "completion"):
        texts = recognise([{"prompt": "a", answer: "b", "id": 1}], "instructions", False).texts
        assert texts == {"prompt": "prompt", "response": answer}
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert recognise([row], "preferences", True).texts == {name: name for name in row}
    quoted = {"prompt": '[{"a": 1}]', "response": "b"}
    assert recognise([quoted], "instructions", False).texts, "a text in JSON is not a chat"


def test_answers_with_labels() -> None:
    row = {"prompt": "a", "completion": "b", "label": True}
    found = recognise([row], "preferences", True)
    assert found.labelled
    assert found.texts == {"prompt": "prompt", "response": "completion"}
    assert recognise([{"prompt": [ASK], "completion": [GOOD], "label": 0}], "preferences", True).texts is None
    assert not recognise([{"prompt": "a", "chosen": "b", "rejected": "c", "label": 1}], "preferences", True).labelled
    assert all(label_of({"label": v}, "line 1") for v in (True, 1, "True", "1"))
    assert not any(label_of({"label": v}, "line 1") for v in (False, 0, "false"))
    for wrong in ("good", None, 2):
        with pytest.raises(DataError, match=r"line 1: field 'label' is .* Give true or false."):
            label_of({"label": wrong}, "line 1")


def test_the_first_known_record_counts() -> None:
    assert recognise([{"x": 1}, {"messages": [ASK, GOOD]}], "instructions", False).name == "OpenAI messages"


REFUSED = {
    "labels": ([{"prompt": "a", "completion": "b", "label": True}], False, "Set data=preferences"),
    "unknown": ([{"a": 1, "b": 2}], False, "unknown fields: a, b. Set data.prompt=FIELD and data.response=FIELD"),
    "nothing": ([], False, "no records"),
    "preferences": ([{"prompt": "a", "chosen": "b", "rejected": "c"}], False, "Set data=preferences"),
    "instructions": ([{"messages": [ASK, GOOD]}], True, "Set data=instructions"),
    "texts without a prompt": ([{"chosen": "b", "rejected": "c"}], True, "unknown fields: chosen, rejected"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_formats_are_refused(name: str) -> None:
    rows, preferences, said = REFUSED[name]
    with pytest.raises(DataError, match=said):
        recognise(rows, "preferences" if preferences else "instructions", preferences)


BROKEN: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no answer": (instruction_chat, {"messages": [ASK]}, "line 7: no answer of the assistant"),
    "a role": (instruction_chat, {"messages": [ASK, {"role": "narrator", "content": "x"}]},
               "message 2 of line 7: role 'narrator' is unknown"),
    "a picture": (instruction_chat, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, GOOD]},
                  "message 1 of line 7: field 'content' is not text"),
    "a call": (instruction_chat, {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": []}]},
               "message 2 of line 7: field 'content' is not text"),
    "no list": (instruction_chat, {"messages": "hello"}, "field 'messages' is not a list of messages"),
    "null": (instruction_chat, {"instruction": "a", "output": None}, "field 'output' is not text"),
    "missing": (preference_chats, {"chosen": [ASK, GOOD]}, "field 'rejected' is not a list of messages"),
    "equal": (preference_chats, {"chosen": [ASK, GOOD], "rejected": [ASK, GOOD]}, "do not differ by answers alone"),
    "two questions": (preference_chats, {"chosen": [ASK, GOOD], "rejected": [SYSTEM, GOOD]}, "do not differ by"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_records_are_named_by_their_place(name: str) -> None:
    convert, row, said = BROKEN[name]
    with pytest.raises(DataError, match=said):
        convert(row, "line 7")


def test_preferences_as_messages_are_trained_on(tmp_path: Path) -> None:
    """Both rows have the prompt of the chat; templates of the user win over the recognised format."""
    asked = [ASK | {"content": f"{n}?"} for n in range(9)]
    rows = [{"chosen": [question, GOOD], "rejected": [question, BAD]} for question in asked]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: dict[str, Any] = {"path": str(tmp_path / "a.jsonl"), "tokenizer": "byte", "batch_size": 1}
    data: Any = Preferences(**settings)
    data.setup()
    x, y = data.fetch(data.train, torch.arange(1), None, train=False)
    text = f"{data.pairs('train')[0][0]}"
    assert text.startswith("user:\n")
    for row, answer in zip(x[0].tolist(), b"ab", strict=True):
        assert row == [256, *text.encode(), answer]
    assert [[t for t in row if t >= 0] for row in y[0].tolist()] == [[ord("a"), 256], [ord("b"), 256]]
    fields = {name: f"{{{name}[1][content]}}" for name in ("chosen", "rejected")}
    fields["prompt"] = "{chosen[0][content]}\\n"
    own: Any = Preferences(**settings, **fields)
    own.setup()
    assert own.pairs("train")[0][0].endswith("?\n")
    assert "user" not in own.pairs("train")[0][0]
