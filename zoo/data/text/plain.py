"""Plain text from files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from zlib import crc32

from annotated_types import MinLen

from zoo.core.cache import data_root, user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.datamodule import Texts, TokenizerChoice, TokenWindows
from zoo.data.text.files import files_of
from zoo.data.text.overlap import LineOverlap
from zoo.data.text.spans import Span, is_jsonl, read_texts, spans


@register("data", "text")
class Text(TokenWindows):
    """Your own text: data=text data.path=FILE_OR_FOLDER data.glob='*.md'.

    UTF-8 files are joined in the order of their paths. Split 90 : 5 : 5, evenly spaced over the text (see
    `zoo.data.text.spans.spans`). Each line of a `.jsonl` file, and with `lines` of every file, is one text. These
    are split by a hash, so that equal texts are in one split.

    Args:
        path: file or folder; null is `$ZOO_DATA/text`.
        glob: files of a folder and its sub-folders; hidden and system files are left out.
        field: text field of the objects in `.jsonl` files.
        lines: each line is one text, such as a name.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        glob: str = "*.txt",
        field: Annotated[str, MinLen(1)] = "text",
        lines: bool = False,
        context: PositiveInt = 256,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.path, self.glob, self.field, self.lines = path, glob, field, lines

    def read(self) -> Texts:
        """Read all files.

        Raises:
            DataError: no such file or folder, no match, or not text.
        """
        path = user_path(self.path) if self.path else data_root(None) / "text"
        files = files_of(path, self.glob)
        listed = [file for file in files if self.lines or is_jsonl(file)]
        running = spans([file for file in files if file not in listed])
        train, val, test = ([text for span in split for text in self.texts_in(span)] for split in running)
        if train:
            overlap = LineOverlap(val + test)
            overlap.search("\n".join(train))
            overlap.report(self.registered_name)
        if listed:
            rows = [text for file in listed for text in self.texts_in(Span(file, 0, file.stat().st_size))]
            parts = split_by_hash(rows, path)
            train, val, test = (texts + part for texts, part in zip((train, val, test), parts, strict=True))
        return train, val, test

    def texts_in(self, span: Span) -> list[str]:
        """Read the texts in a span."""
        return read_texts(span, self.field, self.lines)


def split_by_hash(texts: Sequence[str], path: Path) -> Texts:
    """Split distinct texts by their CRC-32: the lowest 5 % are for validation, the next 5 % for testing.

    Raises:
        DataError: fewer than three distinct texts.
    """
    order = sorted(set(texts), key=lambda text: (crc32(text.encode()), text))
    if len(order) < 3:
        raise DataError(f"data.path={path}: {len(order)} different texts, too few to split. Give at least 3.")
    share = max(len(order) // 20, 1)
    val, test = set(order[:share]), set(order[share : 2 * share])
    parts: Texts = ([], [], [])
    for text in texts:
        parts[1 if text in val else 2 if text in test else 0].append(text)
    return parts
