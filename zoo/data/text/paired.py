"""Pairs of a source and a target text, such as a sentence and its translation.

A split is one stream of tokens, `source <end> target <end> source <end> ...`, with the four positions of each pair.
"""

import csv
import logging
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from zoo.core.cache import data_root, user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import ABSENT, Pair, Space, Tokens
from zoo.data.base import Split
from zoo.data.loader import LengthBucketSampler, ShuffledSampler, make_generator
from zoo.data.text.datamodule import TokenizedData, TokenizerChoice
from zoo.data.text.files import decode_file, jsonl

TextPair = tuple[str, str]
PairSplits = tuple[list[TextPair], list[TextPair], list[TextPair]]  # training, validation, test
FIELDS = [
    ("source", "target"),
    ("question", "answer"),
    ("document", "summary"),
    ("prompt", "completion"),
    ("input", "output"),
]
HELD_OUT = {"val": ("val", "valid", "validation", "dev"), "test": ("test",)}  # stems of file names
log = logging.getLogger(__name__)


class PairData(TokenizedData):
    """Tokenized pairs in three splits; a subclass provides `read`.

    Training batches hold pairs of similar length, and are padded to the longest source and target. A training pair with
    a text of more than `context` tokens is left out; a held-out one is an error.

    Args:
        context: maximum number of tokens of a text with its end.
        tokenizer: tokenizer, fitted to the sources and targets of the training pairs.
        batch_size: pairs per batch.
        seed: seed of the order.
    """

    def space_of(self, text: Tokens) -> Space:
        """A source and a target."""
        return Pair(text, text)

    def texts_of(self, samples: list[TextPair]) -> list[str]:
        """List sources and targets."""
        return [text for pair in samples for text in pair]

    def pairs(self, split: str) -> list[TextPair]:
        """List the pairs of the split "train", "val" or "test", unchanged."""
        return self.splits[("train", "val", "test").index(split)]

    def load(self) -> None:
        """Tokenize the pairs.

        Raises:
            DataError: a held-out pair, or all training pairs, longer than the context.
        """
        train, val, test = (self.encode(pairs) for pairs in self.splits)
        fits = longest(train) <= self.context
        if not fits.any():
            raise DataError(
                f"data.context={self.context}: every training pair of {self.registered_name} has a longer text. "
                f"Set data.context={int(longest(train).max())}, or give shorter texts."
            )
        if not fits.all():
            log.warning(
                "%s of %s training pairs have a text of more than data.context=%s tokens and are left out.",
                int((~fits).sum()), len(fits), self.context,
            )  # fmt: skip
        for name, split in (("validation", val), ("test", test)):
            if (most := int(longest(split).max())) > self.context:
                raise DataError(
                    f"data.context={self.context}: pair {int(longest(split).argmax()) + 1} of the {name} split has a "
                    f"text of {most} tokens, and held-out pairs are kept. Set data.context={most} or shorten it."
                )
        self.train: Split = train[0][fits], train[1]
        self.val: Split = val
        self.test: Split = test

    def encode(self, pairs: list[TextPair]) -> Split:
        """Encode pairs as (start and end of source and target int64 (N, 2, 2), stream of tokens int32 (L,))."""
        end = torch.tensor([self.tokenizer.end], dtype=torch.int32)
        texts = self.tokenizer.encode_all(self.texts_of(pairs))
        ends = torch.tensor([len(ids) + 1 for ids in texts]).cumsum(0).view(-1, 2)
        begins = torch.cat([ends.new_zeros(1), ends.flatten()[:-1]]).view(-1, 2)
        return torch.stack([begins, ends], 2), torch.cat([part for ids in texts for part in (ids, end)])

    def train_sampler(self, rank: int, world: int) -> ShuffledSampler:
        """Sampler of batches of similar length: by target, then by source."""
        source, target = (self.train[0][:, :, 1] - self.train[0][:, :, 0]).unbind(1)
        return LengthBucketSampler(target * (self.context + 1) + source, self.batch_size, self.seed, rank, world)

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Make sources (B, S) and targets (B, T), int64, each with its end and padded with `ABSENT`."""
        positions, stream = split
        source, target = positions[indices].unbind(1)  # (B, 2) each
        return padded(stream, source), padded(stream, target)


def longest(split: Split) -> Tensor:
    """Count the tokens of each pair's longer text, with its end: (N,)."""
    return (split[0][:, :, 1] - split[0][:, :, 0]).amax(1)


def padded(stream: Tensor, positions: Tensor) -> Tensor:
    """Gather the ranges positions[:, 0] to positions[:, 1] as padded rows, int64 (B, T)."""
    begin, length = positions[:, :1], positions[:, 1:] - positions[:, :1]
    column = torch.arange(int(length.max()))
    rows = stream[(begin + column).clamp(max=len(stream) - 1)].long()
    return rows.masked_fill(column >= length, ABSENT)


@register("data", "pairs")
class Pairs(PairData):
    """Your own pairs of texts: data=pairs data.path=FOLDER data.source=de data.target=en, or a .tsv or .jsonl file.

    A folder has `train.SOURCE` and `train.TARGET` (line by line), `train.tsv` or `train.jsonl`. Optional are `val`
    (also `valid`, `validation`, `dev`) and `test` in the same form. Without a validation file 5 % of the pairs, drawn
    by `split_seed`, are for validation and 5 % for testing. A validation file without a test file serves as both.

    Args:
        path: folder or file; null is `$ZOO_DATA/pairs`.
        source: suffix of line files, such as de; heading of a TSV column (null: the first, without headings); or a
            JSON field. Null is the first of source, question, document, prompt and input.
        target: the same for targets. Null is the second column; or target, answer, summary, completion or output.
        split_seed: seed of the held-out pairs.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        source: str | None = None,
        target: str | None = None,
        split_seed: int = 0,
        context: PositiveInt = 128,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.path, self.source, self.target, self.split_seed = path, source, target, split_seed
        if (source is None) != (target is None):
            raise DataError("data.source and data.target: only one is given. Give both, or neither.")

    def read(self) -> PairSplits:
        """Read all files.

        Raises:
            DataError: no such file or folder, or no pairs.
        """
        path = user_path(self.path) if self.path else data_root(None) / "pairs"
        if not path.exists():
            raise DataError(f"data.path={path}: no such file or folder. Set data.path=PATH.")
        found = self.read_split(path.parent, path.name) if path.is_file() else self.read_split(path, "train")
        if found is None:
            wanted = f"train.{self.source or 'SOURCE'} and train.{self.target or 'TARGET'}"
            raise DataError(
                f"data.path={path}: no training pairs. Add {wanted} (with data.source and data.target), "
                f"train.tsv or train.jsonl."
            )
        held = {
            name: next((pairs for stem in stems if (pairs := self.read_split(path, stem)) is not None), None)
            for name, stems in HELD_OUT.items()
            if path.is_dir()
        }
        val, test = held.get("val"), held.get("test")
        if val is not None:
            return found, val, val if test is None else test
        share = max(len(found) // 20, 1)
        if len(found) < 3:
            raise DataError(f"data.path={path}: {len(found)} pairs, too few to split. Give at least 3, or a val file.")
        order = torch.randperm(len(found), generator=make_generator(self.split_seed)).tolist()
        first, second = sorted(order[:share]), sorted(order[share : 2 * share])
        rest = sorted(order[2 * share :] if test is None else order[share:])
        val, drawn, train = ([found[i] for i in some] for some in (first, second, rest))
        return train, val, drawn if test is None else test

    def read_split(self, folder: Path, stem: str) -> list[TextPair] | None:
        """Read the pairs of one split, or return None if there is no such file."""
        named = folder / stem
        if named.suffix in (".tsv", ".jsonl") and named.is_file():
            read = from_tsv if named.suffix == ".tsv" else from_jsonl
            return read(named, self.source, self.target)
        if named.is_file() and named.suffix:
            raise DataError(f"data.path={named}: neither .tsv nor .jsonl. Give one of these, or a folder.")
        for ending in (".tsv", ".jsonl"):
            if (folder / f"{stem}{ending}").is_file():
                return self.read_split(folder, f"{stem}{ending}")
        if self.source and self.target and (folder / f"{stem}.{self.source}").is_file():
            return from_lines(folder / f"{stem}.{self.source}", folder / f"{stem}.{self.target}")
        return None


@register("data", "multi30k")
class Multi30k(PairData):
    """Multi30k: 29,000 image descriptions in German, English and French (Elliott et al. 2016, 1605.00459).

    The files are `multi30k/{train,val,test_2016_flickr}.{de,en,fr}`, with 1,014 validation and 1,000 test pairs.

    Args:
        path: folder that contains `multi30k/`; null is `$ZOO_DATA`, else `~/.cache/zoo`.
        source: language of the sources.
        target: language of the targets.
    """

    SOURCE = "https://github.com/multi30k/dataset"

    def __init__(
        self,
        *,
        path: str | None = None,
        source: Literal["de", "en", "fr"] = "de",
        target: Literal["de", "en", "fr"] = "en",
        context: PositiveInt = 128,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.path, self.source, self.target = path, source, target
        if source == target:
            raise DataError(f"data.source and data.target are both {source}. Choose two of de, en and fr.")

    def read(self) -> PairSplits:
        """Read two files per split.

        Raises:
            DataError: no such files.
        """
        folder = data_root(self.path) / "multi30k"
        if not (folder / f"train.{self.source}").is_file():
            raise DataError(
                f"data.path: no file {folder}/train.{self.source}. Save the files of {self.SOURCE} there, or set "
                f"data.path or $ZOO_DATA."
            )
        names = ("train", "val", "test_2016_flickr")
        train, val, test = (from_lines(folder / f"{n}.{self.source}", folder / f"{n}.{self.target}") for n in names)
        return train, val, test


def lines(path: Path) -> list[str]:
    """Read the lines of a text file."""
    text = decode_file(path)
    return text.removesuffix("\n").split("\n") if text else []


def from_lines(source: Path, target: Path) -> list[TextPair]:
    """Pair line n of one file with line n of the other.

    Raises:
        DataError: a file is missing or empty, or the files differ in length.
    """
    if not target.is_file():
        raise DataError(f"{target} is missing. Each line of {source.name} needs a line there.")
    one, two = lines(source), lines(target)
    if len(one) != len(two):
        raise DataError(
            f"{source} has {len(one)} lines and {target.name} has {len(two)}. Make line n of one the "
            f"translation of line n of the other."
        )
    return require_pairs(list(zip(one, two, strict=True)), source)


def from_tsv(path: Path, source: str | None, target: str | None) -> list[TextPair]:
    """Read two columns of a tab-separated file, by default the first two.

    Raises:
        DataError: a line with too few columns, or no such heading.
    """
    rows = list(csv.reader(lines(path), delimiter="\t", quoting=csv.QUOTE_NONE))
    columns, first = (0, 1), 0
    if source is not None and target is not None:
        heading = rows[0] if rows else []
        for name in (source, target):
            if name not in heading:
                have = ", ".join(heading) or "nothing"
                raise DataError(
                    f"data.source and data.target: no column {name} in the first line of {path}. It has {have}."
                )
        columns, first = (heading.index(source), heading.index(target)), 1
    for number, row in enumerate(rows[first:], first + 1):
        if len(row) <= max(columns):
            raise DataError(f"line {number} of {path} has {len(row)} columns, too few for a pair. Separate the two "
                           f"texts by a tab.")  # fmt: skip
    return require_pairs([(row[columns[0]], row[columns[1]]) for row in rows[first:]], path)


def from_jsonl(path: Path, source: str | None, target: str | None) -> list[TextPair]:
    """Read two text fields of one JSON object per line.

    Raises:
        DataError: a line is not an object, or does not have a field.
    """
    pairs: list[TextPair] = []
    for where, values in jsonl(path):
        if source is None or target is None:
            source, target = next((f for f in FIELDS if values.keys() >= set(f)), (None, None))
        if source is None or target is None:
            have = ", ".join(map(str, values)) or "nothing"
            raise DataError(f"{where} has the fields {have}. Name the two of the pair by data.source and "
                           f"data.target.")  # fmt: skip
        for name in (source, target):
            if not isinstance(values.get(name), str):
                problem = "not text" if name in values else "missing"
                raise DataError(f"field {name} is {problem} in {where}. Every line needs it.")
        pairs.append((values[source], values[target]))
    return require_pairs(pairs, path)


def require_pairs(pairs: list[TextPair], path: Path) -> list[TextPair]:
    """Return the pairs, if there are any.

    Raises:
        DataError: the file is empty.
    """
    if not pairs:
        raise DataError(f"{path} is empty. Add pairs.")
    return pairs
