"""Prompts with answers as rows of tokens.

A row becomes `<begin> prompt answer <end>`, and only the answer and its end are scored. A pretrained tokenizer decides
which tokens begin a prompt, as in generation. Prompt and answer are encoded separately, so that generation after the
prompt starts at a token boundary.

An answer may consist of several parts, of which the first, the third ... are scored: those of the assistant in a chat.
The end is a target after each of them, unless a chat template has written one itself. It is not among the inputs.
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.spaces import ABSENT
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split
from zoo.data.loader import TensorLoader
from zoo.data.text.chat import encode_parts
from zoo.data.text.datamodule import Texts, TokenWindows

CONTEXT = 256  # tokens, if neither the data nor a pretrained model sets it
Answer = str | tuple[str, ...]  # one part, or parts of which the first, the third ... are scored; () is absent
Row = tuple[Any, ...]  # a prompt and its answers: str, Answer ...
PromptSplits = tuple[list[Row], list[Row], list[Row]]  # training, validation, test
Piece = tuple[Tensor, Tensor]  # input tokens and scored tokens, int32 (T,) each


class PromptResponseData(TokenWindows):
    """Tokenized rows in three splits; a subclass provides `rows`.

    Batches are padded to their longest row.

    Args:
        context: maximum number of tokens per row; null is that of the pretrained model, else 256.
        truncate: leave out the oldest turns of rows that are too long, then cut the beginnings of their prompts;
            without it they are an error.
        tokenizer: tokenizer, fitted to the training rows unless a pretrained model has one.
        batch_size: rows per batch.
        seed: seed of the order.
    """

    prompted = True
    keep_on_gpu = False  # `fetch` computes the length of a batch on the host
    n_answers: ClassVar[int] = 1  # per prompt
    packing: bool = False
    has_inner_begin: bool = False  # the token that begins a row is also inside one
    n_cut: int = 0  # rows of the split that were shortened

    def __init__(
        self, context: int | None, truncate: bool, tokenizer: str | dict[str, Any], batch_size: int, seed: int
    ) -> None:
        super().__init__(context or CONTEXT, tokenizer, batch_size, seed)
        self.inherit_context, self.truncate = context is None, truncate

    def rows(self) -> PromptSplits:
        """Read prompts with their answers for each split; a prompt must be in one split only."""
        raise NotImplementedError

    def use_tokenizer_from(self, spec: DataSpec) -> None:
        """Take the tokenizer of a pretrained model, and its context if none is given."""
        super().use_tokenizer_from(spec)
        if self.inherit_context:
            self.context = spec.size

    def check_model(self, model: Any) -> None:
        """Check that a model separates the rows of a window, and does not separate the turns of a row.

        Raises:
            DataError: rows between which the model attends, or turns between which it does not.
        """
        masks = getattr(model, "masks_documents", False)
        if self.packing and not masks:
            raise DataError(
                f"data.packing=true: {model.registered_name} attends from one row of a window to another. "
                "Set model.document_mask=true for the language model, or data.packing=false."
            )
        if masks and self.has_inner_begin:
            raise DataError(
                "model.document_mask=true: the chat template writes the token that separates rows between turns. "
                "Set model.document_mask=false and data.packing=false."
            )

    def read(self) -> Texts:
        """Join every prompt with each of its answers."""
        self.tokenizer.chat_format = "text"  # `rows` may change it
        self._rows = self.rows()
        train, val, test = ([row[0] + "".join(answer) for row in rows for answer in row[1:]] for rows in self._rows)
        return train, val, test

    def load(self) -> None:
        """Tokenize the rows.

        Raises:
            DataError: a split without rows, or a row longer than the context.
        """
        _ = self.texts
        splits = []
        for name, rows in zip(("training", "validation", "test"), self._rows, strict=True):
            if not rows:
                raise DataError(f"data={self.registered_name}: no {name} rows. Give more rows, or one file per split.")
            self.n_cut = 0
            pieces = list(self.encode(name, rows))
            if name == "training":
                self.details["rows"] = self.statistics(pieces)
            if self.packing and name == "training":
                pieces = pack(pieces, self.context)
            splits.append(concatenate(pieces, self.n_answers))
        self.train, self.val, self.test = splits

    def statistics(self, pieces: Sequence[Piece]) -> str:
        """Count the rows and tokens of a split, in one line."""
        pieces = [(x, y) for x, y in pieces if bool((y >= 0).any())]  # without absent answers
        lengths = [len(x) for x, _ in pieces]
        scored = sum(int((y >= 0).sum()) for _, y in pieces)
        cut = f", {self.n_cut:,} cut" if self.truncate else ""
        size = f"{len(pieces):,} for training, {sum(lengths):,} tokens, longest {max(lengths):,}{cut}"
        return f"{size}, {scored / sum(lengths):.1%} scored"

    def encode(self, name: str, rows: Sequence[Row]) -> Iterator[Piece]:
        """Yield input and scored tokens for every answer of every row."""
        for number, row in enumerate(rows):
            for answer in row[1:]:
                if answer == ():
                    yield torch.tensor([self.tokenizer.begin], dtype=torch.int32), torch.tensor([ABSENT]).int()
                    continue
                parts = encode_parts(self.tokenizer, (row[0], *((answer,) if isinstance(answer, str) else answer)))
                if self.packing and parts[0][:1] != [self.tokenizer.begin]:
                    parts[0] = [self.tokenizer.begin, *parts[0]]  # packed rows need a token that separates them
                if sum(map(len, parts)) > self.context:
                    parts = self.shorten(parts, self.place_of(row, number + 1, name))
                x, y = targets(parts, self.tokenizer.end, self.tokenizer.ends)
                self.has_inner_begin |= self.tokenizer.begin in x[1:]
                yield torch.tensor(x, dtype=torch.int32), torch.tensor(y, dtype=torch.int32)

    def shorten(self, parts: list[list[int]], place: str) -> list[list[int]]:
        """Leave out the oldest turns, and cut the beginning of the prompt, of a row that is too long.

        Raises:
            DataError: `truncate` is off, or the last answer alone is too long.
        """
        room, kept = self.context - len(parts[-1]), parts[0][: parts[0][:1] == [self.tokenizer.begin]]
        if room < 1 or not self.truncate:
            cut = "" if room < 1 else ", or cut the beginnings of prompts by data.truncate=true"
            raise DataError(
                f"data.context={self.context}: {place} has {sum(map(len, parts))} tokens. Set a longer context or "
                f"remove the row{cut}."
            )
        self.n_cut += 1
        while len(parts) > 2 and sum(map(len, parts)) > self.context:
            parts = [kept + parts[2], *parts[3:]]
        prompt = parts[0]
        if sum(map(len, parts)) > self.context:
            prompt = kept + prompt[len(prompt) - room + len(kept) :]
        return [prompt, *parts[1:]]

    def place_of(self, row: Row, number: int, split: str) -> str:
        """Describe where a row is, for error messages."""
        return f"row {number} of the {split} split of {self.registered_name}"

    def pairs(self, split: str) -> list[tuple[str, str]]:
        """List the prompts of a split with their answers, or the chosen ones of two; in a chat, those of each turn."""
        _ = self.texts
        found = []
        for prompt, answer, *_ in self._rows[("train", "val", "test").index(split)]:
            parts = (answer,) if isinstance(answer, str) else answer
            found += [("".join((prompt, *parts[:n])), parts[n]) for n in range(0, len(parts), 2)]
        return found

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Make rows x int64 (B, T), padded with ends, and scored tokens y; for two answers (B, 2, T)."""
        spans, streams = split
        begin, length = spans[indices].flatten(0, 1).unbind(1)  # (B n_answers,) each
        place = torch.arange(int(length.max()))
        inside = place < length[:, None]  # (B n_answers, T)
        tokens = streams[:, (begin[:, None] + place).clamp(max=streams.shape[1] - 1)].long()
        x = tokens[0].masked_fill(~inside, self.tokenizer.end)
        y = tokens[1].masked_fill(~inside, ABSENT)
        if self.n_answers == 1:
            return x, y
        return x.unflatten(0, (-1, self.n_answers)), y.unflatten(0, (-1, self.n_answers))

    def fitting_dataloader(self) -> TensorLoader:
        """The training rows once, shuffled."""
        return DataModule.fitting_dataloader(self)


def targets(parts: Sequence[list[int]], end: int, ends: Collection[int]) -> tuple[list[int], list[int]]:
    """Join parts, of which the second, the fourth ... are scored: input tokens, and the target after each of them.

    Args:
        parts: token ids.
        end: the target after a scored part.
        ends: after a part that contains one of these, there is no target.
    """
    x, y = list[int](), list[int]()  # y begins with the target of a token before x
    for number, part in enumerate(parts):
        x += part
        if number % 2:
            y += part
            y.append(ABSENT if any(token in ends for token in part) else end)
        elif part:
            y += [ABSENT] * (len(part) - (number > 0))
        elif y:
            y.pop()  # the next part follows directly
    return x, y[1:]


def concatenate(pieces: list[Piece], answers: int) -> Split:
    """Join pieces in two streams (2, M), with the start and length of each piece (N, answers, 2)."""
    lengths = torch.tensor([len(x) for x, _ in pieces])
    learned = torch.tensor([bool((y >= 0).any()) for _, y in pieces]).view(-1, answers)
    assert bool(learned.any(1).all()), "a row without anything to learn"
    spans = torch.stack([lengths.cumsum(0) - lengths, lengths], 1).unflatten(0, (-1, answers))
    return spans, torch.stack([torch.cat([x for x, _ in pieces]), torch.cat([y for _, y in pieces])])


def pack(pieces: list[Piece], size: int) -> list[Piece]:
    """Pack whole pieces into windows of at most `size` tokens by best-fit decreasing.

    At most 11/9 of the optimal number of windows plus a constant are used (Johnson 1973).
    """
    windows: list[list[Piece]] = []
    room: list[tuple[int, int]] = []  # (tokens left, window), sorted
    for piece in sorted(pieces, key=lambda p: -len(p[0])):  # stable
        length = len(piece[0])
        found = bisect_left(room, (length, -1))
        if found < len(room):
            left, window = room.pop(found)
        else:
            left, window = size, len(windows)
            windows.append([])
        windows[window].append(piece)
        insort(room, (left - length, window))
    return [(torch.cat([x for x, _ in w]), torch.cat([y for _, y in w])) for w in windows]
