"""Prompts with answers, and preference pairs, from JSON Lines.

A row becomes `<begin> prompt answer <end>`, and only the answer and its end are scored. A pretrained tokenizer decides
which tokens begin a prompt, as in generation. Prompt and answer are encoded separately, so that generation after the
prompt starts at a token boundary.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar
from zlib import crc32

import torch
from torch import Tensor

from zoo.core.cache import user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import ABSENT, Preference, Space, Tokens
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split
from zoo.data.loader import LengthBucketSampler, ShuffledSampler, TensorLoader
from zoo.data.text.datamodule import Texts, TokenizerChoice, TokenWindows
from zoo.data.text.files import find_file, jsonl, warn_of_others
from zoo.data.text.overlap import warn_of_shared
from zoo.data.text.templates import render_template

CONTEXT = 256  # tokens, if neither the data nor a pretrained model sets it
Row = tuple[str, ...]  # a prompt and its answers
Piece = tuple[Tensor, Tensor]  # input tokens and scored tokens, int32 (T,) each


class PromptResponseData(TokenWindows):
    """Tokenized rows in three splits; a subclass provides `rows`.

    Batches are padded to their longest row.

    Args:
        context: maximum number of tokens per row; null is that of the pretrained model, else 256.
        truncate: cut the beginnings of prompts that are too long; without it they are an error.
        tokenizer: tokenizer, fitted to the training rows unless a pretrained model has one.
        batch_size: rows per batch.
        seed: seed of the order.
    """

    prompted = True
    keep_on_gpu = False  # `fetch` computes the length of a batch on the host
    n_answers: ClassVar[int] = 1  # per prompt
    packing: bool = False

    def __init__(
        self, context: int | None, truncate: bool, tokenizer: str | dict[str, Any], batch_size: int, seed: int
    ) -> None:
        super().__init__(context or CONTEXT, tokenizer, batch_size, seed)
        self.inherit_context, self.truncate = context is None, truncate

    def rows(self) -> tuple[list[Row], list[Row], list[Row]]:
        """Read prompts with their answers for each split; a prompt must be in one split only."""
        raise NotImplementedError

    def use_tokenizer_from(self, spec: DataSpec) -> None:
        """Take the tokenizer of a pretrained model, and its context if none is given."""
        super().use_tokenizer_from(spec)
        if self.inherit_context:
            self.context = spec.size

    def check_model(self, model: Any) -> None:
        """Check that a model separates the rows of a window.

        Raises:
            DataError: packed rows, between which the model attends.
        """
        if self.packing and not getattr(model, "masks_documents", False):
            raise DataError(
                f"data.packing=true: {model.registered_name} attends from one row of a window to another. "
                "Set model.document_mask=true for the language model, or data.packing=false."
            )

    def read(self) -> Texts:
        """Join every prompt with each of its answers."""
        self._rows = self.rows()
        train, val, test = ([row[0] + answer for row in rows for answer in row[1:]] for rows in self._rows)
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
            pieces = list(self.encode(name, rows))
            if self.packing and name == "training":
                pieces = pack(pieces, self.context)
            splits.append(concatenate(pieces, self.n_answers))
        self.train, self.val, self.test = splits

    def encode(self, name: str, rows: Sequence[Row]) -> Iterator[Piece]:
        """Yield input and scored tokens for every answer of every row."""
        prompts = [self.encode_prompt(row[0]) for row in rows]
        answers = [self.tokenizer.encode_continuation(answer) for row in rows for answer in row[1:]]
        for number, answer in enumerate(answers):
            prompt = prompts[number // self.n_answers]
            room = self.context - len(answer)
            if len(prompt) > room:
                if room < 1 or not self.truncate:
                    needed = len(prompt) + len(answer)
                    cut = "" if room < 1 else ", or cut the beginnings of prompts by data.truncate=true"
                    place = self.place_of(rows[number // self.n_answers], number // self.n_answers + 1, name)
                    raise DataError(
                        f"data.context={self.context}: {place} has {needed} tokens. Set a longer context or remove "
                        f"the row{cut}."
                    )
                kept = prompt[: prompt[0] == self.tokenizer.begin]
                prompt = kept + prompt[len(prompt) - room + len(kept) :]
            scored = [ABSENT] * (len(prompt) - 1) + answer + [self.tokenizer.end]
            yield torch.tensor(prompt + answer, dtype=torch.int32), torch.tensor(scored, dtype=torch.int32)

    def encode_prompt(self, text: str) -> list[int]:
        """Encode a prompt as generation does; packed rows need a token that separates them."""
        ids, begin = self.tokenizer.encode_prompt(text), self.tokenizer.begin
        return [begin, *ids] if self.packing and ids[0] != begin else ids

    def place_of(self, row: Row, number: int, split: str) -> str:
        """Describe where a row is, for error messages."""
        return f"row {number} of the {split} split of {self.registered_name}"

    def pairs(self, split: str) -> list[tuple[str, str]]:
        """List the prompts of a split with their answers, or the chosen ones of two."""
        _ = self.texts
        return [(row[0], row[1]) for row in self._rows[("train", "val", "test").index(split)]]

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


def concatenate(pieces: list[Piece], answers: int) -> Split:
    """Join pieces in two streams (2, M), with the start and length of each piece (N, answers, 2)."""
    lengths = torch.tensor([len(x) for x, _ in pieces])
    assert all(bool((y >= 0).any()) for _, y in pieces), "a row without anything to learn"
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


# -- files ---------------------------------------------------------------------------------------------------


def split_files(path: str | None, name: str) -> list[list[tuple[str, dict[str, Any]]]]:
    """Read located rows for training, validation and testing.

    A folder has train.jsonl, val.jsonl and test.jsonl (default: val.jsonl). Of a single file all rows are in the first
    list.

    Raises:
        DataError: no such file or folder.
    """
    if path is None:
        raise DataError(f"data={name}: no file. Set data.path=FILE.jsonl, or a folder of splits.")
    place = user_path(path)
    if place.is_file():
        return [jsonl(place), [], []]
    train, val, test = (find_file(place, f"{split}.jsonl") for split in ("train", "val", "test"))
    if not train or not val:
        raise DataError(
            f"data.path={place}: neither a file nor a folder with train.jsonl and val.jsonl. Set data.path."
        )
    warn_of_others(place, {train, val, test})
    splits = [jsonl(train), jsonl(val)]
    return [*splits, jsonl(test) if test else splits[1]]


def split_by_prompt_hash(rows: Sequence[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """Split rows by the CRC-32 of their prompt modulo 20: 0 is for validation, 1 for testing.

    If that leaves a split of at least three prompts empty, the two lowest CRC-32 are for validation and testing.
    """
    prompts = sorted({row[0] for row in rows}, key=lambda prompt: (crc32(prompt.encode()), prompt))
    split = {prompt: {0: 1, 1: 2}.get(crc32(prompt.encode()) % 20, 0) for prompt in prompts}
    if len(prompts) > 2 and len(set(split.values())) < 3:
        split = dict.fromkeys(prompts, 0) | {prompts[0]: 1, prompts[1]: 2}
    parts: tuple[list[Row], list[Row], list[Row]] = [], [], []
    for row in rows:
        parts[split[row[0]]].append(row)
    return parts


class FileBackedPrompts(PromptResponseData):
    """Rows from files, in batches of similar length, so that little is padded."""

    places: dict[Row, str]  # file and line of each row

    def train_sampler(self, rank: int, world: int) -> ShuffledSampler:
        """Sampler of batches of similar length; the longer of two answers counts."""
        return LengthBucketSampler(self.train[0][:, :, 1].amax(1), self.batch_size, self.seed, rank, world)

    def place_of(self, row: Row, number: int, split: str) -> str:
        """Describe where a row is: its line and file."""
        return self.places[row]

    def from_files(self, path: str | None, **templates: str) -> tuple[list[Row], list[Row], list[Row]]:
        """Read rows of files by the templates of their fields."""
        self.places, splits = {}, list[list[Row]]()
        for located in split_files(path, self.registered_name):
            splits.append([])
            for where, values in located:
                row = tuple(render_template(key, template, where, values) for key, template in templates.items())
                self.places.setdefault(row, where)
                splits[-1].append(row)
        train, val, test = splits
        if not val:
            return split_by_prompt_hash(train)
        held = {"validation": val} | ({"test": test} if test != val else {})
        prompts = {split: [row[0] for row in rows] for split, rows in held.items()}
        warn_of_shared(self.registered_name, (row[0] for row in train), prompts, "prompts")
        return train, val, test


@register("data", "instructions")
class Instructions(FileBackedPrompts):
    """Your own prompts with answers, such as questions or summaries: data=instructions data.path=FILE.jsonl.

    A file is split by a hash of the prompt: 5 % for validation, 5 % for testing, the rest for training. A folder has
    `train.jsonl`, `val.jsonl` and optionally `test.jsonl`.

    Args:
        path: file or folder.
        prompt: field of the prompt, or a template of fields such as `Translate: {de}\\n`; see
            `zoo.data.text.templates`.
        response: field or template of the answer.
        packing: pack whole training rows into windows of `context` tokens. The model must have
            `model.document_mask=true`.
        batch_size: rows per batch, or windows with `packing`.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        prompt: str = "prompt",
        response: str = "response",
        packing: bool = False,
        context: PositiveInt | None = None,
        truncate: bool = False,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, truncate, tokenizer, batch_size, seed)
        self.path, self.prompt, self.response, self.packing = path, prompt, response, packing

    def rows(self) -> tuple[list[Row], list[Row], list[Row]]:
        """Read the files."""
        return self.from_files(self.path, prompt=self.prompt, response=self.response)


@register("data", "preferences")
class Preferences(FileBackedPrompts):
    """Your own prompts with a better and a worse answer: data=preferences data.path=FILE.jsonl.

    Args:
        path: a file, split by prompt as in `instructions`, or a folder of splits.
        prompt: field of the prompt, or a template of fields.
        chosen: field or template of the better answer.
        rejected: field or template of the worse answer.
    """

    def space_of(self, text: Tokens) -> Space:
        """A chosen and a rejected answer."""
        return Preference(text)

    n_answers = 2

    def __init__(
        self,
        *,
        path: str | None = None,
        prompt: str = "prompt",
        chosen: str = "chosen",
        rejected: str = "rejected",
        context: PositiveInt | None = None,
        truncate: bool = False,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, truncate, tokenizer, batch_size, seed)
        self.path, self.fields = path, {"prompt": prompt, "chosen": chosen, "rejected": rejected}

    def rows(self) -> tuple[list[Row], list[Row], list[Row]]:
        """Read the files."""
        return self.from_files(self.path, **self.fields)
