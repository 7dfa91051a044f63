"""Formats of instruction data, recognised from the fields of a record, and their conversion to chats.

| format | fields |
|---|---|
| OpenAI messages | `messages`: objects with `role` and `content`; `weight` 0 is not scored |
| ShareGPT | `conversations`: objects with `from` and `value`; `system` |
| Alpaca | `instruction`, `input` (optional), `output`, `system` (optional) |
| prompts | `prompt` with `response` or `completion`, as texts or as lists of messages |
| preferences | `chosen` and `rejected`, as lists of messages, or as texts with `prompt` |
| labels | `prompt`, `completion` or `response`, and `label`: true for a good answer |
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from zoo.core.errors import DataError

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "tool": "tool",
    "function": "tool", "observation": "tool", "function_call": "assistant",
}  # fmt: skip
NAMES = {"role", "from"}  # of the field with the role of a message
LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


@dataclass(frozen=True)
class Chat:
    """A conversation.

    Args:
        messages: role and content of each.
        scored: numbers of the answers to learn.
    """

    messages: list[dict[str, str]]
    scored: list[int]


@dataclass(frozen=True)
class Format:
    """Meaning of the fields of records.

    Args:
        name: for people.
        texts: setting -> field, where the fields are whole texts.
        labelled: a record has one answer, and whether it is good.
    """

    name: str
    texts: dict[str, str] | None = None
    labelled: bool = False


def recognise(rows: Iterable[Mapping[str, Any]], name: str, preferences: bool) -> Format:
    """The format of the first record that has a known one.

    Args:
        rows: the first records.
        name: of the data, for errors.
        preferences: records have a better and a worse answer.

    Raises:
        DataError: no known format, or one that the data cannot be made of.
    """
    known = preference_format if preferences else instruction_format
    first: Mapping[str, Any] | None = None
    for row in rows:
        first = row if first is None else first
        if found := known(row):
            return found
    settings = ("prompt", "chosen", "rejected") if preferences else ("prompt", "response")
    fields = "no records" if first is None else f"unknown fields: {', '.join(first)}"
    if first is not None and (instruction_format if preferences else preference_format)(first):
        other = "instructions" if preferences else "preferences"
        raise DataError(f"data={name}: the records have the fields of data={other}. Set data={other}.")
    remedy = " and ".join([", ".join(f"data.{s}=FIELD" for s in settings[:-1]), f"data.{settings[-1]}=FIELD"])
    raise DataError(f"data={name}: {fields}. Set {remedy}.")


def instruction_format(row: Mapping[str, Any]) -> Format | None:
    """Format of a prompt with an answer, or of a chat."""
    if "messages" in row:
        return Format("OpenAI messages")
    if "conversations" in row:
        return Format("ShareGPT conversations")
    if "instruction" in row and "output" in row:
        return Format("Alpaca instructions")
    answer = "response" if "response" in row else "completion"
    if "prompt" not in row or answer not in row or (answer == "completion" and "label" in row):
        return None
    if is_messages(row["prompt"]) or is_messages(row[answer]):
        return Format("prompts and answers as messages")
    return Format(f"prompt and {answer}", {"prompt": "prompt", "response": answer})


def preference_format(row: Mapping[str, Any]) -> Format | None:
    """Format of a better and a worse answer, or of one with a label."""
    if "label" in row and "prompt" in row and (answer := "response" if "response" in row else "completion") in row:
        if is_messages(row["prompt"]) or is_messages(row[answer]):
            return Format("answers with labels, as messages", None, True)
        return Format("answers with labels", {"prompt": "prompt", "response": answer}, True)
    if "chosen" not in row or "rejected" not in row:
        return None
    if is_messages(row["chosen"]) or is_messages(row["rejected"]):
        return Format("chosen and rejected messages")
    texts = {name: name for name in ("prompt", "chosen", "rejected")}
    return Format("prompt, chosen and rejected", texts) if "prompt" in row else None


def is_messages(value: Any) -> bool:
    """Whether a value is a list of objects, also as JSON in a text, or as one object of lists."""
    found = unpacked(value)
    return isinstance(found, list) and bool(found) and all(isinstance(m, dict) and m.keys() & NAMES for m in found)


def unpacked(value: Any) -> Any:
    """Messages that a table holds as JSON, or that `datasets` holds as an object of lists, as a list."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        return [dict(zip(value, row, strict=False)) for row in zip(*value.values(), strict=False)]
    return value


def instruction_chat(row: Mapping[str, Any], where: str) -> Chat:
    """The chat of a record of instructions.

    Raises:
        DataError: a field or an answer is missing, or a message is not text.
    """
    if "messages" in row or "conversations" in row:
        name = "messages" if "messages" in row else "conversations"
        return checked(system_of(row, where) + messages_of(row[name], name, where), where)
    if "instruction" in row:
        asked = [text_of(row.get(name), name, where) for name in ("instruction", "input") if row.get(name)]
        turns = [("user", "\n".join(asked)), ("assistant", text_of(row.get("output"), "output", where))]
        return checked(system_of(row, where) + [(role, text, True) for role, text in turns], where)
    answer = "response" if "response" in row else "completion"
    prompt = as_messages(row.get("prompt"), "prompt", "user", where)
    answers = as_messages(row.get(answer), answer, "assistant", where)
    chat = checked(prompt + answers, where)
    return Chat(chat.messages, [number for number in chat.scored if number >= len(prompt)])


def preference_chats(row: Mapping[str, Any], where: str) -> tuple[Chat, Chat]:
    """The chats with the better and the worse answer; what they have in common is their prompt.

    Raises:
        DataError: a field is missing, or the chats do not differ by answers alone.
    """
    chats = []
    for name in ("chosen", "rejected"):
        turns = as_messages(row.get(name), name, "assistant", where)
        alone = turns[:1] and turns[0][0] == "assistant"
        before = as_messages(row["prompt"], "prompt", "user", where) if alone and row.get("prompt") else []
        chats.append(checked(system_of(row, where) + before + turns, where))
    one, two = (chat.messages for chat in chats)
    common = next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    if common == len(one) or common == len(two) or one[common]["role"] != "assistant" != two[common]["role"]:
        raise DataError(f"{where}: chosen and rejected do not differ by answers alone. Give two answers to one prompt.")
    better, worse = (Chat(chat.messages, [n for n in chat.scored if n >= common]) for chat in chats)
    return better, worse


def label_of(row: Mapping[str, Any], where: str) -> bool:
    """Whether the answer of a record is good.

    Raises:
        DataError: the label is not true or false.
    """
    found = LABELS.get(str(row.get("label")).strip().lower())
    if found is None:
        raise DataError(f"{where}: field 'label' is {row.get('label')!r}. Give true or false.")
    return found


Turn = tuple[str, str, bool]  # role, content, and whether an answer is learned


def checked(turns: list[Turn], where: str) -> Chat:
    """A chat with something to learn."""
    scored = [n for n, (role, _, learned) in enumerate(turns) if role == "assistant" and learned]
    if not scored:
        raise DataError(f"{where}: no answer of the assistant. Remove the record.")
    return Chat([{"role": role, "content": text} for role, text, _ in turns], scored)


def system_of(row: Mapping[str, Any], where: str) -> list[Turn]:
    """The message of the system, if it has a separate field."""
    return [("system", text_of(row["system"], "system", where), False)] if row.get("system") else []


def as_messages(value: Any, name: str, role: str, where: str) -> list[Turn]:
    """Messages, or a text as one message."""
    if isinstance(value, str) and not is_messages(value):
        return [(role, value, True)]
    return messages_of(value, name, where)


def messages_of(value: Any, name: str, where: str) -> list[Turn]:
    """Roles and contents of a list of messages."""
    if not is_messages(value):
        raise DataError(f"{where}: field {name!r} is not a list of messages. Give objects with role and content.")
    turns = []
    for number, item in enumerate(unpacked(value), 1):
        at = f"message {number} of {where}"
        role = item.get("role", item.get("from"))
        if not isinstance(role, str) or role.lower() not in ROLES:
            raise DataError(f"{at}: role {role!r} is unknown. Use system, user, assistant or tool.")
        key = "content" if "content" in item else "value"
        turns.append((ROLES[role.lower()], text_of(item.get(key), key, at), item.get("weight") != 0))
    return turns


def text_of(value: Any, name: str, where: str) -> str:
    """A text, or the texts of a list of parts.

    Raises:
        DataError: anything else, such as a picture or a call of a tool.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        texts = [part.get("text") for part in value]
        if all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
    raise DataError(f"{where}: field {name!r} is not text. Remove the record, or give text.")
