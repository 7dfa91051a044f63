"""Your own prompts with answers, chats, and preference pairs, from files.

The format is recognised from the fields of the records, see `zoo.data.text.conversations`.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any
from zlib import crc32

from zoo.core.cache import user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import Preference, Tokens
from zoo.data.loader import LengthBucketSampler, ShuffledSampler
from zoo.data.text.chat import ChatTemplate, template_of
from zoo.data.text.conversations import instruction_chat, label_of, preference_chats, recognise
from zoo.data.text.datamodule import TokenizerChoice
from zoo.data.text.overlap import warn_of_shared
from zoo.data.text.prompts import PromptResponseData, PromptSplits, Row
from zoo.data.text.records import Broken, Record, read_records, record_files
from zoo.data.text.templates import render_template

FIRST = 100  # records that may show the format


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
        if path is None:
            raise DataError(f"data={self.registered_name}: no file. Set data.path=FILE.jsonl, or a folder of splits.")
        broken = Broken(skip)
        splits = {
            split: [record for file in files for record in read_records(file, broken)]
            for split, files in record_files(user_path(path)).items()
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


@register("data", "instructions")
class Instructions(FileBackedPrompts):
    """Your own prompts with answers, or chats: data=instructions data.path=FILE.jsonl.

    A file is split by a hash of the prompt: 5 % for validation, 5 % for testing, the rest for training. A folder may
    have splits, see `zoo.data.text.records`. Of a chat, the answers of the assistant are scored, and nothing else.

    Args:
        path: file or folder: JSON Lines, JSON, CSV, TSV, Parquet, or saved by `datasets`.
        prompt: field of the prompt, or a template of fields such as `Translate: {de}\\n`; see
            `zoo.data.text.templates`. Without it the format is recognised, see `zoo.data.text.conversations`.
        response: field or template of the answer.
        skip_broken: leave out records that cannot be used, and count them; else the first one is an error.
        packing: pack whole training rows into windows of `context` tokens. The model must have
            `model.document_mask=true`.
        batch_size: rows per batch, or windows with `packing`.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        prompt: str | None = None,
        response: str | None = None,
        skip_broken: bool = False,
        packing: bool = False,
        context: PositiveInt | None = None,
        truncate: bool = False,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, truncate, tokenizer, batch_size, seed)
        self.path, self.skip_broken, self.packing = path, skip_broken, packing
        self.fields = {"prompt": prompt, "response": response}

    def rows(self) -> PromptSplits:
        """Read the files."""
        return self.from_files(self.path, self.fields, self.skip_broken)


@register("data", "preferences")
class Preferences(FileBackedPrompts):
    """Your own prompts with a better and a worse answer, or with answers that have a label.

    data=preferences data.path=FILE.jsonl. Records with `prompt`, `completion` and `label` (true or false) are for
    model=kto.

    Args:
        path: a file, split by prompt as in `instructions`, or a folder.
        prompt: field of the prompt, or a template of fields. Without templates the format is recognised, see
            `zoo.data.text.conversations`.
        chosen: field or template of the better answer.
        rejected: field or template of the worse answer.
        skip_broken: leave out records that cannot be used, and count them; else the first one is an error.
    """

    def space_of(self, text: Tokens) -> Space:
        """A chosen and a rejected answer."""
        return Preference(text)

    n_answers = 2

    def __init__(
        self,
        *,
        path: str | None = None,
        prompt: str | None = None,
        chosen: str | None = None,
        rejected: str | None = None,
        skip_broken: bool = False,
        context: PositiveInt | None = None,
        truncate: bool = False,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, truncate, tokenizer, batch_size, seed)
        self.path, self.skip_broken = path, skip_broken
        self.fields = {"prompt": prompt, "chosen": chosen, "rejected": rejected}

    def rows(self) -> PromptSplits:
        """Read the files."""
        return self.from_files(self.path, self.fields, self.skip_broken)
