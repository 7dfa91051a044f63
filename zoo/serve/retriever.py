"""Passages of an index for chats (Lewis et al. 2020, arXiv:2005.11401)."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.core.errors import ConfigError
from zoo.retrieval.answer import fill
from zoo.retrieval.build import embedder_of, nearest_of
from zoo.retrieval.embedding import Embedder
from zoo.retrieval.index import Hit, Index

CHAT = "{passages}\n\nQuestion: {question}"  # of a chat's last message; the chat template adds the answer
RESERVED = 0.5  # largest share of the context that is kept for an answer


@dataclass(frozen=True, kw_only=True)
class Source:
    """A passage that an answer was given.

    Args:
        number: in the prompt, as in [1].
        text: of the passage.
        score: of the search; higher is better.
        metadata: of the passage, such as its source with begin and end.
    """

    number: int
    text: str
    score: float
    metadata: dict[str, Any]


class Retriever:
    """An index of texts, and its thread.

    Args:
        folder: of the index.

    Raises:
        ConfigError: not an index of texts, or its model has changed.
    """

    def __init__(self, folder: Path) -> None:
        self.thread = ThreadPoolExecutor(1, "zoo-serve-index")  # SQLite's connections belong to a thread
        self.index: Index
        self.embedder: Embedder | None
        self.index, self.embedder = self.thread.submit(self._open, folder).result()
        self.nearest = self.thread.submit(nearest_of, self.index).result()

    @staticmethod
    def _open(folder: Path) -> tuple[Index, Embedder | None]:
        index = Index(folder)
        if not index.database.execute("SELECT count(*) FROM texts").fetchone()[0]:
            raise ConfigError(f"--index={folder}: holds no texts. Make an index of texts: zoo index --files.")
        return index, embedder_of(index) if "run" in index.about else None

    async def search(self, question: str, k: int) -> list[Hit]:
        """The k best passages for a question: by words, and together with vectors if the index has them."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, self._search, question, k)

    def _search(self, question: str, k: int) -> list[Hit]:
        if self.embedder is None:
            return self.index.search_text(question, k)
        return self.index.fuse(question, self.embedder.texts([question])[0], k, by_vector=self.nearest)


def with_passages(
    messages: Sequence[dict[str, str]], hits: Sequence[Hit], template: Any, model: Any, most: int | None
) -> tuple[str, list[Source]]:
    """The prompt of a chat whose last message is preceded by passages, and those passages.

    Args:
        messages: of the chat; the last one is a question.
        hits: best first; the last ones are left out until prompt and answer fit the context.
        template: of chats.
        model: that answers.
        most: tokens of the answer; None keeps half of the context.

    Raises:
        DataError: messages that the template does not take.
    """
    context, question = model.spec.tokens.length, messages[-1]["content"]
    reserved = int(RESERVED * context) if most is None else min(most, int(RESERVED * context))
    for number in range(len(hits), 0, -1):
        asked = dict(messages[-1]) | {"content": fill(CHAT, question, hits[:number])}
        prompt = template.render([*messages[:-1], asked])
        if len(model.tokenizer.encode_prompt(prompt)) <= context - reserved:
            return prompt, [source_of(i, hit) for i, hit in enumerate(hits[:number], 1)]
    return template.render(list(messages)), []


def source_of(number: int, hit: Hit) -> Source:
    """A passage for clients: without folders of this machine."""
    facts = dict(hit.metadata)
    if isinstance(place := facts.get("source"), str) and Path(place).is_absolute():
        facts["source"] = Path(place).name
    return Source(number=number, text=hit.text, score=hit.score, metadata=facts)
