"""Rows of prompts and answers from files, in memory or mapped from files of tokens."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any
from zlib import crc32

from zoo.core.cache import user_path
from zoo.core.errors import DataError
from zoo.data.loader import LengthBucketSampler, ShuffledSampler
from zoo.data.text.chat import ChatTemplate, template_of
from zoo.data.text.conversations import instruction_chat, label_of, preference_chats, recognise
from zoo.data.text.datamodule import SPLITS, Texts
from zoo.data.text.mapped_rows import HELD, RowWriter, map_rows, row_folder
from zoo.data.text.overlap import warn_of_shared
from zoo.data.text.prompts import PromptResponseData, PromptSplits, Row
from zoo.data.text.record_texts import fair_sample
from zoo.data.text.records import Broken, Record, read_records, record_files
from zoo.data.text.templates import render_template
from zoo.data.text.tokenizers.base import dumps

FIRST = 100  # records that may show the format
FIT_SIZE = 64 << 20  # characters of streamed rows that the tokenizer is fitted to


def asked(row: Row) -> str:
    """The prompt of a row, with the questions of all turns of a chat."""
    return row[0] if isinstance(row[1], str) else "".join((row[0], *row[1][1::2]))


def split_by_prompt_hash(rows: Sequence[Row]) -> PromptSplits:
    """Split rows by the CRC-32 of their questions modulo 20: 0 is for validation, 1 for testing.

    If that leaves a split of at least three prompts empty, the two lowest CRC-32 are for validation and testing.
    """
    prompts = sorted({asked(row) for row in rows}, key=lambda prompt: (crc32(prompt.encode()), prompt))
    split = {prompt: {0: 1, 1: 2}.get(crc32(prompt.encode()) % 20, 0) for prompt in prompts}
    if len(prompts) > 2 and len(set(split.values())) < 3:
        split = dict.fromkeys(prompts, 0) | {prompts[0]: 1, prompts[1]: 2}
    parts: tuple[list[Row], list[Row], list[Row]] = [], [], []
    for row in rows:
        parts[split[asked(row)]].append(row)
    return parts


class FileBackedPrompts(PromptResponseData):
    """Rows from files, in batches of similar length, so that little is padded."""

    places: dict[Row, str]  # file and line of each row
    labelled: bool = False  # each row has one answer, a good or a bad one; the other is absent
    path: str | None
    fields: dict[str, str | None]
    skip_broken: bool
    streaming: bool

    def rows(self) -> PromptSplits:
        """Read the files."""
        return self.from_files(self.path, self.fields, self.skip_broken)

    # -- streaming -------------------------------------------------------------------------------------------

    def read(self) -> Texts:
        """Read all rows. With `streaming` some stay in memory, and the tokenizer is fitted to those of lowest hash."""
        if not self.streaming:
            return super().read()
        if self.packing:
            raise DataError("data.packing=true: not together with data.streaming=true. Leave one of them out.")
        self.tokenizer.chat_format = "text"
        self._rows = [], [], []

        def texts() -> Iterator[str]:
            for split, row, _ in self.stream_rows():
                if len(self._rows[split]) < HELD:
                    self._rows[split].append(row)
                if split == 0 and not self.tokenizer_from_model:
                    yield from (row[0] + "".join(answer) for answer in row[1:])

        sample = fair_sample(texts(), FIT_SIZE)
        if self.tokenizer_from_model:
            sample = [row[0] + "".join(answer) for row in self._rows[0] for answer in row[1:]]
        for name, rows in zip(("training", "validation", "test"), self._rows, strict=True):
            if not rows:
                raise DataError(f"data={self.registered_name}: no {name} rows. Give more rows, or one file per split.")
        val, test = ([row[0] + "".join(answer) for row in rows for answer in row[1:]] for rows in self._rows[1:])
        return sample, val, test

    def load(self) -> None:
        """Tokenize the rows; with `streaming` into files, which are mapped into memory."""
        if not self.streaming:
            super().load()
            return
        _ = self.texts
        files = [file for some in record_files(self.located(self.path)).values() for file in some]
        states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        key = [self.registered_name, self.fields, self.skip_broken, self.context, self.truncate, dumps(self.tokenizer)]
        folder, counts = row_folder([*key, states], self.write_rows)
        self.has_inner_begin = counts["has_inner_begin"]
        self.details |= counts["details"]
        self.train, self.val, self.test = (map_rows(folder, name, self.n_answers) for name in SPLITS)

    def write_rows(self, folder: Path) -> dict[str, Any]:
        """Tokenize the rows of all splits into files; return counts."""
        writers = [RowWriter(folder, name) for name in SPLITS]
        self.n_cut = 0
        for split, row, where in self.stream_rows():
            self.places = {row: where}
            pieces = list(self.encode(SPLITS[split], [row]))
            assert any(bool((y >= 0).any()) for _, y in pieces), "a row without anything to learn"
            for x, y in pieces:
                writers[split].add(x, y)
        found, *_ = [writer.close() for writer in writers]
        cut = f", {self.n_cut:,} rows cut" if self.truncate else ""
        size = f"{found['rows']:,} for training, {found['tokens']:,} tokens, longest {found['longest']:,}{cut}"
        details = {**self.details, "rows": f"{size}, {found['scored'] / found['tokens']:.1%} scored, mapped from files"}
        return {"details": details, "has_inner_begin": self.has_inner_begin}

    def stream_rows(self) -> Iterator[tuple[int, Row, str]]:
        """Read the rows one by one: number of the split, row, and location.

        Without files of validation data, the CRC-32 of the questions modulo 20 decides. 0 is for validation. 1 is for
        testing, unless there is a file of test data.

        Raises:
            DataError: see `from_files`.
        """
        broken, files = Broken(self.skip_broken), record_files(self.located(self.path))
        make_row: Callable[[str, dict[str, Any]], Row] | None = None
        for split in (split for split in SPLITS if split in files):
            records: Iterator[Record] = (record for file in files[split] for record in read_records(file, broken))
            if make_row is None:
                first = list(islice(records, FIRST))
                make_row, records = self.row_maker(first, self.fields), chain(first, records)
            for where, values in records:
                try:
                    row = make_row(where, values)
                except DataError as error:
                    broken.add(error)
                    continue
                part = crc32(asked(row).encode()) % 20
                number = SPLITS.index(split)
                if split == "train" and "val" not in files and part < 2 - ("test" in files):
                    number = 1 + part
                yield number, row, where
                if split == "val" and "test" not in files:
                    yield 2, row, where
        broken.report(self.registered_name)
        if broken.errors:
            self.details["broken"] = f"{len(broken.errors):,} records left out"

    def located(self, path: str | None) -> Path:
        """The path of the files.

        Raises:
            DataError: none is given.
        """
        if path is None:
            raise DataError(f"data={self.registered_name}: no file. Set data.path=FILE.jsonl, or a folder of splits.")
        return user_path(path)

    def iterate_texts(self, split: str) -> Iterable[str]:
        """Yield the texts of a split."""
        if not self.streaming:
            return super().iterate_texts(split)
        rows = (row for number, row, _ in self.stream_rows() if SPLITS[number] == split)
        return (row[0] + "".join(answer) for row in rows for answer in row[1:])

    # -- rows in memory --------------------------------------------------------------------------------------

    def train_sampler(self, rank: int, world: int) -> ShuffledSampler:
        """Sampler of batches of similar length; the longer of two answers counts."""
        return LengthBucketSampler(self.train[0][:, :, 1].amax(1), self.batch_size, self.seed, rank, world)

    def place_of(self, row: Row, number: int, split: str) -> str:
        """Describe where a row is: its line and file."""
        return self.places[row]

    def from_files(self, path: str | None, templates: dict[str, str | None], skip: bool) -> PromptSplits:
        """Read the rows of each split.

        Args:
            path: file or folder.
            templates: templates of the prompt and the answers; if all are None, the format is recognised.
            skip: leave out broken records.

        Raises:
            DataError: no records, an unknown format, or a broken record.
        """
        broken, place = Broken(skip), self.located(path)
        splits = {
            split: [record for file in files for record in read_records(file, broken)]
            for split, files in record_files(place).items()
        }
        make_row = self.row_maker(splits["train"], templates)
        self.places, found = {}, dict[str, list[Row]]()
        for split, records in splits.items():
            found[split] = []
            for where, values in records:
                try:
                    row = make_row(where, values)
                except DataError as error:
                    broken.add(error)
                    continue
                self.places.setdefault(row, where)
                found[split].append(row)
        broken.report(self.registered_name)
        if broken.errors:
            self.details["broken"] = f"{len(broken.errors):,} records left out"
        return self.complete(found["train"], found.get("val", []), found.get("test", []))

    def complete(self, train: list[Row], val: list[Row], test: list[Row]) -> PromptSplits:
        """Splits of which the held-out ones may be missing; warn of prompts in two of them."""
        if not val:
            train, val, drawn = split_by_prompt_hash(train)
            if not test:
                return train, val, drawn
            train += drawn
        held = {"validation": val} | ({"test": test} if test else {})
        prompts = {split: [asked(row) for row in rows] for split, rows in held.items()}
        warn_of_shared(self.registered_name, map(asked, train), prompts, "prompts")
        return train, val, test or val

    def row_maker(
        self, records: Sequence[Record], templates: dict[str, str | None]
    ) -> Callable[[str, dict[str, Any]], Row]:
        """The function that makes a row of a record, and its location."""
        if any(templates.values()):
            texts = {key: template or key for key, template in templates.items()}
        else:
            rows = (values for _, values in islice(records, FIRST))
            known = recognise(rows, self.registered_name, self.n_answers > 1)
            self.details["format"], self.labelled = known.name, known.labelled
            if known.texts is None:
                self.tokenizer.chat_format = "chat"
                template = template_of(self.tokenizer)
                self.details["format"] += f", by the {template.kind} chat template"
                return lambda where, values: self.chat_row(template, values, where)
            texts = known.texts
        return lambda where, values: self.placed(
            tuple(render_template(key, template, where, values) for key, template in texts.items()), values, where
        )

    def placed(self, row: Row, values: dict[str, Any], where: str) -> Row:
        """A row; of a record with a label, its answer is the first or the second, and the other is absent."""
        if not self.labelled:
            return row
        prompt, answer = row
        return (prompt, answer, ()) if label_of(values, where) else (prompt, (), answer)

    def check_model(self, model: Any) -> None:
        """Check that a model learns from the labels of single answers, if the records have them.

        Raises:
            DataError: a model that compares two answers.
        """
        super().check_model(model)
        _ = self.texts
        if self.labelled and not getattr(model, "learns_from_labels", False):
            raise DataError(
                f"data={self.registered_name}: the records have answers with labels, and model={model.registered_name} "
                "compares two answers to one prompt. Choose model=kto, or give prompt, chosen and rejected."
            )

    def chat_row(self, template: ChatTemplate, values: dict[str, Any], where: str) -> Row:
        """The row of a record with messages.

        Raises:
            DataError: a broken record, or one that the template refuses.
        """
        pairs = self.n_answers > 1 and not self.labelled
        chats = preference_chats(values, where) if pairs else (instruction_chat(values, where),)
        try:
            parts = [template.parts(chat.messages, chat.scored) for chat in chats]
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        (prompt, *_), *others = parts
        if any(other[0] != prompt for other in others):
            raise DataError(f"{where}: the chat template begins the two chats differently. Set data.prompt and others.")
        answers = (answer[0] if len(answer) == 1 else tuple(answer) for _, *answer in parts)
        return self.placed((prompt, *answers), values, where)
