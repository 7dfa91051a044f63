"""Prompts with answers, and with a better and a worse answer: rows of JSON in files of your own.

A row becomes `<begin> prompt answer <end>`, and only the answer and its end are scored. Prompt and answer are encoded
apart, so that a model that continues the prompt begins where the answer does.
"""

import re
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar
from zlib import crc32

import torch
from torch import Tensor

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import ABSENT, Preference, Space, Tokens
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule, Split
from zoo.data.loader import LengthBucketSampler, ShuffledSampler, TensorLoader
from zoo.data.text.datamodule import Texts, TokenizerChoice, TokenWindows
from zoo.data.text.files import jsonl

CONTEXT = 256  # tokens, where neither the data nor a model that is trained on says how many
Row = tuple[str, ...]  # a prompt and its answers
Piece = tuple[Tensor, Tensor]  # what is read and what is scored, int32 (T,) each


class PromptResponseData(TokenWindows):
    """Rows in three splits, tokenised; a subclass says where they come from.

    Batches are as long as their longest row.

    Args:
        context: most tokens of a row; None is that of the model that is trained on, else 256.
        truncate: cut the beginnings of prompts that are too long; without it they are an error.
        tokenizer: fitted to the training rows, if no model brings one.
        batch_size: rows a batch.
        seed: of their order.
    """

    prompted = True
    keep_on_gpu = False  # how long a batch is has to be looked at
    answers: ClassVar[int] = 1  # to a prompt
    packing: bool = False

    def __init__(
        self, context: int | None, truncate: bool, tokenizer: str | dict[str, Any], batch_size: int, seed: int
    ) -> None:
        super().__init__(context or CONTEXT, tokenizer, batch_size, seed)
        self.open, self.truncate = context is None, truncate

    def rows(self) -> tuple[list[Row], list[Row], list[Row]]:
        """Prompts with their answers, for training, validation and testing; each prompt is in one split only."""
        raise NotImplementedError

    def use_tokenizer_from(self, spec: DataSpec) -> None:
        """Take the tokenizer of a model that is trained on; and its context, if none was asked for."""
        super().use_tokenizer_from(spec)
        if self.open:
            self.context = spec.size

    def read(self) -> Texts:
        """Every prompt with each of its answers."""
        self._rows = self.rows()
        train, val, test = ([row[0] + answer for row in rows for answer in row[1:]] for rows in self._rows)
        return train, val, test

    def load(self) -> None:
        """Tokenise.

        Raises:
            DataError: a split without rows, or a row that is longer than the context.
        """
        _ = self.texts
        splits = []
        for name, rows in zip(("training", "validation", "test"), self._rows, strict=True):
            if not rows:
                raise DataError(f"{self.registered_name} has no {name} rows: give more rows, or files of splits.")
            pieces = list(self.encoded(name, rows))
            if self.packing and name == "training":
                pieces = pack(pieces, self.context)
            splits.append(concatenate(pieces, self.answers))
        self.train, self.val, self.test = splits

    def encoded(self, name: str, rows: Sequence[Row]) -> Iterator[Piece]:
        """What is read and what is scored, for every answer of every row."""
        prompts = self.tokenizer.encode_all([row[0] for row in rows])
        answers = self.tokenizer.encode_all([answer for row in rows for answer in row[1:]])
        begin, end = torch.tensor([[self.tokenizer.begin], [self.tokenizer.end]], dtype=torch.int32)
        for number, answer in enumerate(answers):
            prompt = prompts[number // self.answers]
            room = self.context - 1 - len(answer)
            if len(prompt) > room:
                if room < 0 or not self.truncate:
                    needed = 1 + len(prompt) + len(answer)
                    cut = "" if room < 0 else ", or have the beginnings of prompts cut by data.truncate=true"
                    raise DataError(
                        f"row {number // self.answers + 1} of the {name} split of {self.registered_name} has {needed} "
                        f"tokens, more than data.context={self.context}: take a longer context, or leave it out{cut}."
                    )
                prompt = prompt[len(prompt) - room :]
            skipped = torch.full((len(prompt),), ABSENT, dtype=torch.int32)
            yield torch.cat([begin, prompt, answer]), torch.cat([skipped, answer, end])

    def pairs(self, split: str) -> list[tuple[str, str]]:
        """Every prompt of a split with its answer, of two with the better one."""
        _ = self.texts
        return [(row[0], row[1]) for row in self._rows[("train", "val", "test").index(split)]]

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Rows x int64 (B, T), padded with ends on the right, and what is scored; of two answers (B, 2, T)."""
        spans, streams = split
        begin, length = spans[indices].flatten(0, 1).unbind(1)  # (B answers,) each
        place = torch.arange(int(length.max()))
        inside = place < length[:, None]  # (B answers, T)
        tokens = streams[:, (begin[:, None] + place).clamp(max=streams.shape[1] - 1)].long()
        x = tokens[0].masked_fill(~inside, self.tokenizer.end)
        y = tokens[1].masked_fill(~inside, ABSENT)
        if self.answers == 1:
            return x, y
        return x.unflatten(0, (-1, self.answers)), y.unflatten(0, (-1, self.answers))

    def fitting_dataloader(self) -> TensorLoader:
        """The training rows once, in the order of training."""
        return DataModule.fitting_dataloader(self)


def concatenate(pieces: list[Piece], answers: int) -> Split:
    """Where each piece begins and how long it is, (N, answers, 2), and all of them in two streams (2, M)."""
    lengths = torch.tensor([len(x) for x, _ in pieces])
    assert all(bool((y >= 0).any()) for _, y in pieces), "a row without anything to learn"
    spans = torch.stack([lengths.cumsum(0) - lengths, lengths], 1).unflatten(0, (-1, answers))
    return spans, torch.stack([torch.cat([x for x, _ in pieces]), torch.cat([y for _, y in pieces])])


def pack(pieces: list[Piece], size: int) -> list[Piece]:
    """Whole pieces, one after another in windows of at most `size` tokens: best fit, the longest first.

    Johnson's bound holds: at most 11/9 of the fewest windows that are possible, and one.
    """
    windows: list[list[Piece]] = []
    room: list[tuple[int, int]] = []  # (tokens left, window), sorted
    for piece in sorted(pieces, key=lambda p: -len(p[0])):  # stable: equal data, equal windows
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


def render_template(setting: str, template: str, where: str, row: dict[str, Any]) -> str:
    """A field by its name, or a template with names in braces, filled in; `where` is the row's place, for errors.

    Raises:
        DataError: a field that the row does not have, or that is no text.
    """

    def field(name: str) -> str:
        value = row.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            have = ", ".join(row)
            what = "has no" if value is None else "has no text in the"
            raise DataError(
                f"{where} {what} field {name!r} (it has {have}): say which is meant by data.{setting}=FIELD."
            )
        return value

    if "{" not in template:
        return field(template)
    return re.sub(r"\{(\w+)\}", lambda found: field(found[1]), template)


def split_files(path: str | None, name: str) -> list[list[tuple[str, dict[str, Any]]]]:
    """Rows, and where each stands, for training, validation and testing.

    Of a folder they are train.jsonl, val.jsonl and test.jsonl (without it, val.jsonl again); of a single file all are
    the first, and nothing the others.

    Raises:
        DataError: nothing is there.
    """
    if path is None:
        raise DataError(
            f"data={name} reads files of your own: give one as data.path=FILE.jsonl, or a folder of splits."
        )
    place = Path(path).expanduser()
    if place.is_file():
        return [jsonl(place), [], []]
    files = [place / f"{split}.jsonl" for split in ("train", "val", "test")]
    if not files[0].is_file() or not files[1].is_file():
        raise DataError(f"there is no file {place}, nor a folder of that name with train.jsonl and val.jsonl.")
    train, val = jsonl(files[0]), jsonl(files[1])
    return [train, val, jsonl(files[2]) if files[2].is_file() else val]


def split_by_prompt_hash(rows: Sequence[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """Rows whose prompt has a CRC-32 of 0 modulo 20 are for validation, 1 for testing, all others for training."""
    parts: tuple[list[Row], list[Row], list[Row]] = [], [], []
    for row in rows:
        parts[{0: 1, 1: 2}.get(crc32(row[0].encode()) % 20, 0)].append(row)
    return parts


def from_files(path: str | None, name: str, **templates: str) -> tuple[list[Row], list[Row], list[Row]]:
    """The rows of files, their fields named by settings."""
    splits = [
        [tuple(render_template(setting, template, *row) for setting, template in templates.items()) for row in rows]
        for rows in split_files(path, name)
    ]
    if splits[1]:
        return splits[0], splits[1], splits[2]
    return split_by_prompt_hash(splits[0])


class FileBackedPrompts(PromptResponseData):
    """Rows of files, which differ in length: those of a batch are about equally long, so that little is padded."""

    def train_sampler(self, rank: int, world: int) -> ShuffledSampler:
        """Batches of about equally long rows; of two answers the longer counts."""
        return LengthBucketSampler(self.train[0][:, :, 1].amax(1), self.batch_size, self.seed, rank, world)


@register("data", "instructions")
class Instructions(FileBackedPrompts):
    """Prompts with answers, in JSON Lines: instructions, questions, texts with summaries, sentences with translations.

    A file is split by prompt: a twentieth is for validation, a twentieth for testing, all else for training. A folder
    has `train.jsonl`, `val.jsonl` and, if there is one, `test.jsonl`.

    Args:
        path: the file or folder.
        prompt: the field that holds the prompt, or a template of fields: `data.prompt='Translate: {de}\\n'`.
        response: the same for the answer.
        packing: put whole training rows one after another until a context is full. A model has to keep them apart:
            `model.document_mask=true`.
        context: most tokens of a row; null is that of the model that is trained on, else 256.
        truncate: cut the beginnings of prompts that are too long, which else are an error.
        tokenizer: fitted to the training rows, if no model brings one.
        batch_size: rows a batch; windows if packing.
        seed: of their order.
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
        """Of the files."""
        return from_files(self.path, self.registered_name, prompt=self.prompt, response=self.response)


@register("data", "preferences")
class Preferences(FileBackedPrompts):
    """Prompts with a better and a worse answer, in JSON Lines.

    Args:
        path: a file, split by prompt as in `instructions`, or a folder of splits.
        prompt: the field that holds the prompt, or a template of fields.
        chosen: the same for the better answer.
        rejected: the same for the worse one.
        context: most tokens of a row; null is that of the model that is trained on, else 256.
        truncate: cut the beginnings of prompts that are too long, which else are an error.
        tokenizer: fitted to the training rows, if no model brings one.
        batch_size: pairs a batch.
        seed: of their order.
    """

    def space_of(self, text: Tokens) -> Space:
        """A better and a worse answer."""
        return Preference(text)

    answers = 2

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
        """Of the files."""
        return from_files(self.path, self.registered_name, **self.fields)
