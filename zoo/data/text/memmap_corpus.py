"""Text of any size, tokenized once into memory-mapped files.

A batch touches only the pages of its windows, and the operating system caches pages in free memory.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import MinLen
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from zoo.core.cache import cache_root, data_root, user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.datamodule import SPLITS, TokenizerChoice, TokenWindows
from zoo.data.text.files import files_of
from zoo.data.text.overlap import LineOverlap
from zoo.data.text.record_texts import Share, fair_sample, is_sequential, texts_of_share
from zoo.data.text.spans import BLOCK, Span, blocks, is_jsonl, read_texts, spans
from zoo.data.text.tokenizers.base import dumps
from zoo.io.atomic import atomic_folder, fsync

log = logging.getLogger(__name__)

FIT_BLOCKS = 64  # evenly spaced blocks of training text that the tokenizer is fitted to
FIT_SIZE = FIT_BLOCKS * BLOCK  # characters of files without blocks
VERSION = 2  # of the format of token files


@register("data", "corpus")
class Corpus(TokenWindows):
    """Your own text, also if larger than memory: data=corpus data.path=FOLDER data.glob='*.jsonl'.

    Each plain-text file is one text; each line of a `.jsonl` file is an object with a text. Blocks of a few megabytes
    are tokenized into files of two bytes per token (four with more than 65,536 tokens). The files are used again
    while the texts (paths, sizes, times) and the tokenizer are the same. Split 90 : 5 : 5 by bytes, evenly spaced over
    the text (see `zoo.data.text.spans.spans`). The tokenizer is fitted to at most 256 MB, evenly spaced over the
    training part.

    Files of Parquet, Arrow, CSV, TSV and JSON, and those compressed by gzip or Zstandard, are read record by record.
    Their texts are split by a hash; see `zoo.data.text.record_texts`.

    Args:
        path: file or folder; null is `$ZOO_DATA/corpus`.
        glob: files of a folder and its sub-folders; hidden and system files are left out.
        field: text field of the records in `.jsonl` and other files.
        lines: each line of a plain-text file is one text.
        cache: folder of the token files; null is `corpora/` in `$ZOO_CACHE`, else `~/.cache/zoo`.
    """

    keep_on_gpu = False  # may be larger than any memory

    def __init__(
        self,
        *,
        path: str | None = None,
        glob: str = "*.txt",
        field: Annotated[str, MinLen(1)] = "text",
        lines: bool = False,
        cache: str | None = None,
        context: PositiveInt = 256,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.path, self.glob, self.field, self.lines = path, glob, field, lines
        self.cache = user_path(cache) if cache else cache_root() / "corpora"

    def read(self) -> tuple[list[Span | Share], ...]:
        """List the parts of each split; only names, sizes and a few line ends are read.

        Raises:
            DataError: no such file or folder, or no match.
        """
        path = user_path(self.path) if self.path else data_root(None) / "corpus"
        files = files_of(path, self.glob)
        running = spans([file for file in files if not is_sequential(file)])
        shares = [file for file in files if is_sequential(file)]
        return tuple([*parts, *(Share(file, n) for file in shares)] for n, parts in enumerate(running))

    def texts_of(self, samples: list[Span | Share]) -> list[str]:
        """Read evenly spaced blocks, and the texts of lowest hash of other files, to which the tokenizer is fitted."""
        found = [block for part in samples if isinstance(part, Span) for block in blocks(part)]
        chosen = torch.linspace(0, len(found) - 1, min(len(found), FIT_BLOCKS)).long().tolist()
        texts = [text for i in chosen for text in self.read_texts(found[i])]
        shares = [part for part in samples if isinstance(part, Share)]
        return texts + fair_sample(
            (text for part in shares for some in self.blocks_of(part) for text in some), FIT_SIZE
        )

    def blocks_of(self, part: Span | Share) -> Iterator[list[str]]:
        """Read the texts of a part, block by block."""
        if isinstance(part, Share):
            return texts_of_share(part, self.field, self.lines)
        return (self.read_texts(block) for block in blocks(part))

    def read_texts(self, block: Span) -> list[str]:
        """Read the texts in a block, or its part of one."""
        return read_texts(block, self.field, self.lines)

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
        key = [VERSION, self.field, self.lines, dumps(self.tokenizer)]
        key += [(str(path.resolve()), stat.st_size, stat.st_mtime_ns) for path, stat in files.items()]
        folder = self.cache / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        if folder.is_dir():
            return folder
        size = sum(stat.st_size for stat in files.values())
        rank_zero_only(log.info)(f"tokenizing {size / 1e6:,.0f} MB of text into {folder}, once")
        try:
            with atomic_folder(folder) as draft:
                held = (texts for split in splits[1:] for part in split for texts in self.blocks_of(part))
                overlap = LineOverlap(text for texts in held for text in texts)
                for name, split in zip(SPLITS, splits, strict=True):
                    self.write(split, draft / f"{name}.bin", overlap if name == "train" else None)
                overlap.report(self.registered_name)
        except OSError as error:
            raise DataError(
                f"data.cache={self.cache}: the tokens of {size / 1e6:,.0f} MB of text cannot be written "
                f"({error.strerror}). Give a folder with free space."
            ) from None
        return folder

    def write(self, split: list[Span | Share], path: Path, overlap: LineOverlap | None) -> None:
        """Write a begin token, and the texts of a split, each with a separator."""
        kind, separator = torch.int32 if self.wide else torch.uint16, self.tokenizer.separator
        with path.open("wb") as file:

            def put(ids: list[int] | Tensor) -> None:
                file.write(torch.as_tensor(ids).to(kind).numpy().tobytes())

            put([self.tokenizer.begin])
            for part in split:
                several = self.lines or isinstance(part, Share) or is_jsonl(part.path)
                for texts in self.blocks_of(part):
                    for ids in self.tokenizer.encode_all(texts):
                        put(ids)
                        if several:
                            put(separator)
                    if overlap:
                        overlap.search("\n".join(texts))
                if not several:
                    put(separator)
            file.flush()
            fsync(path)

    def iterate_texts(self, split: str) -> Iterable[str]:
        """Read the texts of a split, one block after the other."""
        return (text for part in self.splits[SPLITS.index(split)] for some in self.blocks_of(part) for text in some)

    def sample_texts(self, split: str, n: int, length: int) -> list[str]:
        """Take n evenly spaced excerpts of at most `length` tokens from a split."""
        return self.cut_evenly(getattr(self, split)[1], n, length)
