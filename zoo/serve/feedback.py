"""Ratings of answers: stored in SQLite, and exported as preferences that a model can be trained on."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from zoo.core.errors import ConfigError, ZooError

MOST = 1_000_000  # entries of a file
TABLE = (
    "CREATE TABLE IF NOT EXISTS feedback (id INTEGER PRIMARY KEY, time TEXT NOT NULL, model TEXT NOT NULL, "
    "rating INTEGER NOT NULL, note TEXT NOT NULL, request TEXT NOT NULL, answer TEXT NOT NULL)"
)


class NotStored(ZooError):
    """An entry that could not be written, as on a full disk; the file holds the entries before it."""


class FeedbackStore:
    """A SQLite file of ratings, each with its request and its answer. Several servers may share it.

    Args:
        path: the file, which is created if there is none.

    Raises:
        ConfigError: the file cannot be opened, or is not a database.
    """

    seconds = 10.0  # until another writer must be done

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with closing(self._connect()) as connection, connection:
                connection.execute(TABLE)
        except sqlite3.OperationalError as error:
            raise ConfigError(f"feedback={path}: cannot be written ({error}). Choose another.") from None
        except sqlite3.Error as error:
            raise ConfigError(f"feedback={path}: not a SQLite file ({error}). Choose another.") from None

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=self.seconds)

    def add(self, model: str, rating: int, note: str, request: dict[str, Any], answer: str) -> int:
        """Store an entry.

        Args:
            model: name of the model.
            rating: 1 is good, -1 is bad.
            note: reason, or nothing.
            request: body of the request that was answered.
            answer: its text; nothing for other samples, which the request's seed gives again.

        Returns:
            the number of the entry; 0 if the file is full.

        Raises:
            NotStored: a full disk, a damaged file, or another program that keeps the file locked.
        """
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        values = (now, model, rating, note, json.dumps(request), answer)
        try:
            with closing(self._connect()) as connection, connection:
                connection.execute(TABLE)  # the file may have been removed since the start
                done = connection.execute(
                    "INSERT INTO feedback (time, model, rating, note, request, answer) SELECT ?, ?, ?, ?, ?, ? "
                    f"WHERE (SELECT COUNT(*) FROM feedback) < {MOST}",
                    values,
                )
                return int(done.lastrowid or 0) if done.rowcount else 0
        except sqlite3.Error as error:
            raise NotStored(f"feedback={self.path}: not stored ({error}). Make room, or end what locks it.") from None

    def entries(self) -> list[dict[str, Any]]:
        """All entries, oldest first; `request` is parsed."""
        with closing(self._connect()) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM feedback ORDER BY id").fetchall()
        return [dict(row) | {"request": json.loads(row["request"])} for row in rows]

    def preferences(self) -> Iterator[dict[str, str]]:
        """Pairs of a good and a bad answer to one prompt, in the format of `data=preferences`.

        Each good answer is paired with each bad one; an answer that was rated both ways is left out.
        """
        rated: dict[str, dict[str, set[int]]] = {}
        for entry in self.entries():
            prompt = prompt_of(entry["request"])
            if prompt is not None and entry["answer"]:
                rated.setdefault(prompt, {}).setdefault(entry["answer"], set()).add(entry["rating"])
        for prompt, answers in rated.items():
            good = [answer for answer, ratings in answers.items() if ratings == {1}]
            bad = [answer for answer, ratings in answers.items() if ratings == {-1}]
            for chosen in good:
                for rejected in bad:
                    yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def prompt_of(request: dict[str, Any]) -> str | None:
    """The prompt of a request; a chat of several messages as lines `role: content`; None without text."""
    match request:
        case {"prompt": str(prompt)}:
            return prompt
        case {"messages": [{"role": "user", "content": str(content)}]}:
            return content
        case {"messages": list(messages)} if messages:
            return "\n".join(f"{m.get('role')}: {m.get('content')}" for m in messages if isinstance(m, dict))
    return None
