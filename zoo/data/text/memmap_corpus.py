"""Text of any size, tokenized once into memory-mapped files.

A batch touches only the pages of its windows, and the operating system caches pages in free memory.
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

from zoo.core.cache import cache_root, data_root, user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.datamodule import TokenizerChoice, TokenWindows
from zoo.data.text.files import decode_utf8, files_of, json_object
from zoo.data.text.tokenizers.base import dumps
from zoo.io.atomic import fsync

log = logging.getLogger(__name__)

BLOCK = 4 << 20  # bytes of text in memory at once
FIT_BLOCKS = 64  # evenly spaced blocks of training text that the tokenizer is fitted to
SPLITS = ("train", "val", "test")
VERSION = 1  # of the format of token files


class Span(NamedTuple):
    """Whole lines of a file, as a range of bytes."""

    path: Path
    begin: int
    end: int


@register("data", "corpus")
class Corpus(TokenWindows):
    """Your own text, also if larger than memory: data=corpus data.path=FOLDER data.glob='*.jsonl'.

    Each plain-text file is one text; each line of a `.jsonl` file is an object with a text. Blocks of a few megabytes
    are tokenized into files of two bytes per token (four with more than 65,536 tokens). The files are used again
    while the texts (paths, sizes, times) and the tokenizer are the same. Split by bytes at line ends: the first 90 %
    are for training, the next 5 % for validation, the last 5 % for testing. The tokenizer is fitted to at most 256 MB,
    evenly spaced over the training part.

    Args:
        path: file or folder; null is `$ZOO_DATA/corpus`.
        glob: files of a folder and its sub-folders.
        field: text field of the objects in `.jsonl` files.
        cache: folder of the token files; null is `corpora/` in `$ZOO_CACHE`, else `~/.cache/zoo`.
    """

    keep_on_gpu = False  # may be larger than any memory

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
        self.cache = user_path(cache) if cache else cache_root() / "corpora"

    def read(self) -> tuple[list[Span], ...]:
        """List the spans of each split; only names, sizes and a few line ends are read.

        Raises:
            DataError: no such file or folder, or no match.
        """
        path = user_path(self.path) if self.path else data_root(None) / "corpus"
        return spans(files_of(path, self.glob))

    def texts_of(self, samples: list[Span]) -> list[str]:
        """Read evenly spaced blocks, to which the tokenizer is fitted."""
        blocks = [block for span in samples for block in cut(span)]
        chosen = torch.linspace(0, len(blocks) - 1, min(len(blocks), FIT_BLOCKS)).long().tolist()
        return [text for i in chosen for text in self.read_block(blocks[i])]

    def read_block(self, block: Span) -> list[str]:
        """Read the texts in a block, or its part of one.

        Raises:
            DataError: the block is not text, or not JSON.
        """
        with opened(block.path) as file:
            file.seek(block.begin)
            text = decode_utf8(file.read(block.end - block.begin), block.path, block.begin)
        if block.path.suffix != ".jsonl":
            return [text]
        found = []
        for line in filter(str.strip, text.split("\n")):
            where = f"a line of {block.path} after byte {block.begin:,}"
            value = json_object(line, where).get(self.field)
            if not isinstance(value, str):
                raise DataError(f"data.field={self.field}: no text of that name in {where}. Set data.field=NAME.")
            found.append(value)
        return found

    def prepare_data(self) -> None:
        """Write the token files in one process per machine, while the others wait."""
        self.token_folder()

    def streams(self) -> list[Tensor]:
        """Map the tokens of each split."""
        folder, wide = self.token_folder(), self.wide
        size = 4 if wide else 2
        return [
            torch.from_file(str(path), size=path.stat().st_size // size, dtype=torch.int32 if wide else torch.uint16)
            for path in (folder / f"{name}.bin" for name in SPLITS)
        ]

    @property
    def wide(self) -> bool:
        """Whether a token takes four bytes."""
        return self.tokenizer.vocab_size > 1 << 16

    def token_folder(self) -> Path:
        """Return the folder with the token file of each split; it is written atomically.

        Raises:
            DataError: no space for it.
        """
        splits = self.splits
        files = {span.path: span.path.stat() for split in splits for span in split}
        key = [VERSION, self.field, dumps(self.tokenizer)]
        key += [(str(path.resolve()), stat.st_size, stat.st_mtime_ns) for path, stat in files.items()]
        folder = self.cache / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        if folder.is_dir():
            return folder
        size = sum(stat.st_size for stat in files.values())
        rank_zero_only(log.info)(f"tokenizing {size / 1e6:,.0f} MB of text into {folder}, once")
        draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
        try:
            draft.mkdir(parents=True)
            for name, split in zip(SPLITS, splits, strict=True):
                self.write(split, draft / f"{name}.bin")
            try:
                draft.rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
        except OSError as error:
            raise DataError(
                f"data.cache={self.cache}: the tokens of {size / 1e6:,.0f} MB of text cannot be written "
                f"({error.strerror}). Give a folder with free space."
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return folder

    def write(self, split: list[Span], path: Path) -> None:
        """Write an end of text, and the texts of a split, each with its end."""
        kind, end = torch.int32 if self.wide else torch.uint16, [self.tokenizer.end]
        with path.open("wb") as file:

            def put(ids: list[int] | Tensor) -> None:
                file.write(torch.as_tensor(ids).to(kind).numpy().tobytes())

            put(end)
            for span in split:
                for block in cut(span):
                    for ids in self.tokenizer.encode_all(self.read_block(block)):
                        put(ids)
                        if span.path.suffix == ".jsonl":
                            put(end)
                if span.path.suffix != ".jsonl":
                    put(end)
            file.flush()
            fsync(path)

    def sample_texts(self, split: str, n: int, length: int) -> list[str]:
        """Take n evenly spaced excerpts of at most `length` tokens from a split."""
        return self.cut_evenly(getattr(self, split)[1], n, length)


def spans(files: list[Path]) -> tuple[list[Span], ...]:
    """Concatenate files, and cut them at line ends into 90, 5 and 5 % of their bytes."""
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
    """Open a file to read bytes.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error


def cut(span: Span) -> Iterator[Span]:
    """Cut a span into blocks of about `BLOCK` bytes, each up to a line end."""
    begin = span.begin
    while begin < span.end:
        end = min(begin + BLOCK, span.end)
        if end < span.end:
            end = min(line_end(span.path, end), span.end)
        yield Span(span.path, begin, end)
        begin = end


def line_end(path: Path, place: int) -> int:
    """Find the end of the line that contains the byte before `place`; in a line above `BLOCK`, of a character."""
    with opened(path) as file:
        file.seek(place - 1)
        line = file.readline(BLOCK)
        if line.endswith(b"\n") or len(line) < BLOCK:
            return place - 1 + len(line)
    begun = next((i for i in range(1, 5) if line[-i] & 0xC0 != 0x80), 1)  # bytes of the last character
    return place - 1 + len(line) - begun
