"""Text of any size: tokenised once into files of numbers, which are mapped into memory and not read.

A batch touches the pages that its windows lie on, whatever the size of the corpus; the system keeps in memory what
there is room for.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

import torch
from annotated_types import MinLen
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from zoo.core.cache import cache_root, data_root
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.datamodule import TokenizerChoice, TokenWindows
from zoo.data.text.files import decoded, files_of, json_object
from zoo.data.text.tokenizers.base import dumps
from zoo.io.atomic import fsync

log = logging.getLogger(__name__)

BLOCK = 4 << 20  # bytes of text in memory at once
LEARN_FROM = 64  # blocks, evenly spaced over the training text, that the tokenizer is fitted to
SPLITS = ("train", "val", "test")
VERSION = 1  # of how text becomes numbers


class Span(NamedTuple):
    """Bytes of a file, from the beginning of a line to the end of one."""

    path: Path
    begin: int
    end: int


@register("data", "corpus")
class Corpus(TokenWindows):
    """Your own text where it may be larger than memory: a file or a folder, of plain text or of JSON lines.

    Of plain text each file is one text; of files that end in `.jsonl` each line is an object with a text. They are
    tokenised a few megabytes at a time, into files of two bytes a token (four, where there are more than 65,536
    kinds), and that once: as long as the files, their sizes and times, and the tokenizer are the same, the numbers are
    found again. Split by bytes, at ends of lines: the first 90 % are for training, the next 5 % for validation, the
    last 5 % for testing. The tokenizer is fitted to at most 256 MB, evenly spaced over the training part.

    Args:
        path: the file or folder; None is `$ZOO_DATA/corpus`.
        glob: which files of a folder, searched in all its subfolders.
        field: of the objects in `.jsonl` files, where the text is.
        cache: where the numbers are kept; None is `$ZOO_CACHE`, else `~/.cache/zoo`, in `corpora/`.
        context: tokens in a window.
        tokenizer: how text becomes numbers.
        batch_size: windows a batch.
        seed: of the order and place of windows.
    """

    keep_on_gpu = False  # it may be larger than any memory

    def __init__(
        self,
        *,
        path: str | None = None,
        glob: str = "*.txt",
        field: Annotated[str, MinLen(1)] = "text",
        cache: str | None = None,
        context: PositiveInt = 256,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.path, self.glob, self.field = path, glob, field
        self.cache = Path(cache).expanduser() if cache else cache_root() / "corpora"

    def read(self) -> tuple[list[Span], ...]:
        """Where each split lies; nothing but the names, the sizes and the ends of a few lines is read.

        Raises:
            DataError: nothing there, or nothing that matches.
        """
        place = Path(self.path).expanduser() if self.path else data_root(None) / "corpus"
        return spans(files_of(place, self.glob))

    def texts_of(self, part: list[Span]) -> list[str]:
        """What the tokenizer is fitted to: not every text, but blocks from everywhere."""
        blocks = [block for span in part for block in cut(span)]
        chosen = torch.linspace(0, len(blocks) - 1, min(len(blocks), LEARN_FROM)).long().tolist()
        return [text for i in chosen for text in self.written(blocks[i])]

    def written(self, block: Span) -> list[str]:
        """The texts in a block, or its piece of one.

        Raises:
            DataError: it is not text, or not JSON.
        """
        with opened(block.path) as file:
            file.seek(block.begin)
            text = decoded(file.read(block.end - block.begin), block.path, block.begin)
        if block.path.suffix != ".jsonl":
            return [text]
        found = []
        for line in filter(str.strip, text.split("\n")):
            where = f"a line of {block.path} after byte {block.begin:,}"
            value = json_object(line, where).get(self.field)
            if not isinstance(value, str):
                raise DataError(f"{where} has no text under {self.field!r}: name the field as data.field=NAME.")
            found.append(value)
        return found

    def prepare_data(self) -> None:
        """Tokenise, if it was not done before: in one process of each machine, while the others wait."""
        self.tokenised()

    def streams(self) -> list[Tensor]:
        """The tokens of each split, mapped."""
        folder, wide = self.tokenised(), self.wide
        size = 4 if wide else 2
        return [
            torch.from_file(str(path), size=path.stat().st_size // size, dtype=torch.int32 if wide else torch.uint16)
            for path in (folder / f"{name}.bin" for name in SPLITS)
        ]

    @property
    def wide(self) -> bool:
        """Does a token take more than two bytes?"""
        return self.tokenizer.vocab_size > 1 << 16

    def tokenised(self) -> Path:
        """The folder with a file of numbers for each split; it is there whole or not at all.

        Raises:
            DataError: no room for it.
        """
        parts = self.splits
        files = {span.path: span.path.stat() for part in parts for span in part}
        told = [VERSION, self.field, dumps(self.tokenizer)]
        told += [(str(path.resolve()), stat.st_size, stat.st_mtime_ns) for path, stat in files.items()]
        folder = self.cache / hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        if folder.is_dir():
            return folder
        size = sum(stat.st_size for stat in files.values())
        rank_zero_only(log.info)(f"tokenising {size / 1e6:,.0f} MB of text into {folder}, once")
        draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
        try:
            draft.mkdir(parents=True)
            for name, part in zip(SPLITS, parts, strict=True):
                self.write(part, draft / f"{name}.bin")
            try:
                draft.rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
        except OSError as error:
            raise DataError(
                f"the tokens of {size / 1e6:,.0f} MB of text cannot be written to {self.cache} ({error.strerror}): "
                f"give a folder with room as data.cache=PATH."
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return folder

    def write(self, part: list[Span], path: Path) -> None:
        """One end, and the texts of a split, each followed by an end."""
        kind, end = torch.int32 if self.wide else torch.uint16, [self.tokenizer.end]
        with path.open("wb") as file:

            def put(ids: list[int] | Tensor) -> None:
                file.write(torch.as_tensor(ids).to(kind).numpy().tobytes())

            put(end)
            for span in part:
                for block in cut(span):
                    for ids in self.tokenizer.encode_all(self.written(block)):
                        put(ids)
                        if span.path.suffix == ".jsonl":
                            put(end)
                if span.path.suffix != ".jsonl":
                    put(end)
            file.flush()
            fsync(path)

    def sample_texts(self, split: str, n: int, length: int) -> list[str]:
        """n pieces of at most so many tokens from a split, evenly spaced."""
        return self.pieces(getattr(self, split)[1], n, length)


def spans(files: list[Path]) -> tuple[list[Span], ...]:
    """Files laid end to end and cut at ends of lines into shares of 90, 5 and 5 per cent of their bytes."""
    total = sum(path.stat().st_size for path in files)
    bounds, done = [round(total * share) for share in (0.9, 0.95)], 0
    parts: tuple[list[Span], ...] = ([], [], [])
    for path in files:
        size, begin = path.stat().st_size, 0
        for number, bound in enumerate([*bounds, total]):
            end = min(max(bound - done, begin), size)
            if begin < end < size:
                end = line_end(path, end)
            if begin < end:
                parts[number].append(Span(path, begin, end))
                begin = end
        done += size
    return parts


def opened(path: Path) -> BinaryIO:
    """A file to read bytes from.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error


def cut(span: Span) -> Iterator[Span]:
    """A span in blocks of about `BLOCK` bytes, each up to the end of a line."""
    begin = span.begin
    while begin < span.end:
        end = min(begin + BLOCK, span.end)
        if end < span.end:
            end = min(line_end(span.path, end), span.end)
        yield Span(span.path, begin, end)
        begin = end


def line_end(path: Path, place: int) -> int:
    """Where the line ends that holds the byte before a place; in a line without end, where a character does."""
    with opened(path) as file:
        file.seek(place - 1)
        line = file.readline(BLOCK)
        if line.endswith(b"\n") or len(line) < BLOCK:
            return place - 1 + len(line)
    begun = next((i for i in range(1, 5) if line[-i] & 0xC0 != 0x80), 1)  # bytes of the last character
    return place - 1 + len(line) - begun
