"""Pairs of a source and a target text, such as a sentence and its translation.

A split is one stream of tokens, `source <end> target <end> source <end> ...`, with the four positions of each pair.
"""

import logging
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from zoo.core.cache import data_root, user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.space import Space
from zoo.core.spaces import ABSENT, Pair, Tokens
from zoo.data.base import Split
from zoo.data.loader import LengthBucketSampler, ShuffledSampler, make_generator
from zoo.data.text.datamodule import TokenizedData, TokenizerChoice
from zoo.data.text.files import find_file, warn_of_others
from zoo.data.text.overlap import warn_of_shared
from zoo.data.text.pair_files import READERS, TextPair, from_lines, require_pairs

PairSplits = tuple[list[TextPair], list[TextPair], list[TextPair]]  # training, validation, test
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
        for name, split, pairs in (("validation", val, self.splits[1]), ("test", test, self.splits[2])):
            if (most := int(longest(split).max())) > self.context:
                number = int(longest(split).argmax())
                place = self.place_of(pairs[number], number + 1, name)
                raise DataError(
                    f"data.context={self.context}: {place} has a text of {most} tokens, and held-out pairs are kept. "
                    f"Set data.context={most} or shorten it."
                )
        self.train: Split = train[0][fits], train[1]
        self.val: Split = val
        self.test: Split = test

    def place_of(self, pair: TextPair, number: int, split: str) -> str:
        """Describe where a pair is, for error messages."""
        return f"pair {number} of the {split} split"

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
        self.files: list[Path] = []
        found = self.read_split(path.parent, path.name) if path.is_file() else self.read_split(path, "train")
        if found is None:
            wanted = f"train.{self.source or 'SOURCE'} and train.{self.target or 'TARGET'}"
            raise DataError(
                f"data.path={path}: no training pairs. Add {wanted} (with data.source and data.target), "
                f"train.tsv or train.jsonl."
            )
        held: dict[str, list[TextPair] | None] = {}
        if path.is_dir():
            for name, stems in HELD_OUT.items():
                held[name] = next((pairs for s in stems if (pairs := self.read_split(path, s)) is not None), None)
            warn_of_others(path, self.files)
        val, test = held.get("val"), held.get("test")
        if val is None:
            found, val, drawn = split_at_random(found, path, self.split_seed, test is None)
            test = drawn if test is None else test
        splits = {"validation": val} | ({"test": test} if test is not None else {})
        warn_of_shared(self.registered_name, found, splits, "pairs")
        return found, val, val if test is None else test

    def read_split(self, folder: Path, stem: str) -> list[TextPair] | None:
        """Read the pairs of one split, or return None if there is no such file."""
        named = folder / stem
        if named.is_file() and named.suffix:
            if named.suffix.lower() not in READERS:
                raise DataError(f"data.path={named}: neither .tsv nor .jsonl. Give one of these, or a folder.")
            return self.read_file(named)
        for ending in READERS:
            if file := find_file(folder, f"{stem}{ending}"):
                return self.read_file(file)
        if self.source and self.target and (source := find_file(folder, f"{stem}.{self.source}")):
            target = find_file(folder, f"{stem}.{self.target}") or folder / f"{stem}.{self.target}"
            self.files += [source, target]
            return from_lines(source, target)
        return None

    def read_file(self, path: Path) -> list[TextPair]:
        """Read the pairs of a TSV or JSON Lines file."""
        self.files.append(path)
        return require_pairs([pair for _, pair in READERS[path.suffix.lower()](path, self.source, self.target)], path)

    def place_of(self, pair: TextPair, number: int, split: str) -> str:
        """Find the line of a pair, by reading the files again."""
        for path in self.files:
            if reader := READERS.get(path.suffix.lower()):
                for line, other in reader(path, self.source, self.target):
                    if other == pair:
                        return f"line {line} of {path}"
        return super().place_of(pair, number, split)  # of two files, whose lines are the pairs


def split_at_random(pairs: list[TextPair], path: Path, seed: int, test: bool) -> PairSplits:
    """Draw 5 % of the distinct pairs for validation, and with `test` 5 % for testing; equal pairs stay together.

    Raises:
        DataError: fewer than three distinct pairs.
    """
    distinct = list(dict.fromkeys(pairs))
    if len(distinct) < 3:
        raise DataError(f"data.path={path}: {len(distinct)} different pairs, too few to split. Give at least 3, or a "
                        f"val file.")  # fmt: skip
    share = max(len(distinct) // 20, 1)
    order = torch.randperm(len(distinct), generator=make_generator(seed)).tolist()
    split = {distinct[i]: 1 for i in order[:share]} | {distinct[i]: 2 for i in order[share : 2 * share] if test}
    parts: PairSplits = ([], [], [])
    for pair in pairs:
        parts[split.get(pair, 0)].append(pair)
    return parts


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
