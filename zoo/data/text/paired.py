"""Pairs of texts: a source and its target, such as a sentence and its translation.

A split is one stream of tokens, `source <end> target <end> source <end> ...`, and the four places of each pair in it.
"""

import csv
import logging
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from zoo.core.cache import data_root
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import ABSENT, Pair, Space, Tokens
from zoo.data.base import Split
from zoo.data.loader import LengthBucketSampler, ShuffledSampler, make_generator
from zoo.data.text.datamodule import TokenizedData, TokenizerChoice
from zoo.data.text.files import decode_file, jsonl

TextPair = tuple[str, str]
Parts = tuple[list[TextPair], list[TextPair], list[TextPair]]  # training, validation, test
FIELDS = [
    ("source", "target"),
    ("question", "answer"),
    ("document", "summary"),
    ("prompt", "completion"),
    ("input", "output"),
]
HELD_OUT = {"val": ("val", "valid", "validation", "dev"), "test": ("test",)}  # names that files may have
log = logging.getLogger(__name__)


class PairData(TokenizedData):
    """Pairs in three splits, tokenised alike on both sides; a subclass says where the texts come from.

    Training batches hold pairs of about the same length. Batches are padded to their own longest source and target. A
    training pair with a side of more than `context` tokens is left out; a held-out one is refused.
    """

    def space_of(self, text: Tokens) -> Space:
        """A source and a target."""
        return Pair(text, text)

    def texts_of(self, part: list[TextPair]) -> list[str]:
        """Sources and targets."""
        return [text for pair in part for text in pair]

    def pairs(self, split: str) -> list[TextPair]:
        """The texts of "train", "val" or "test", as they stand in the files."""
        return self.splits[("train", "val", "test").index(split)]

    def load(self) -> None:
        """Tokenise.

        Raises:
            DataError: a held-out pair, or all training pairs, longer than the context.
        """
        train, val, test = (self.encode(part) for part in self.splits)
        fits = longest(train) <= self.context
        if not fits.any():
            raise DataError(
                f"every training pair of {self.registered_name} has a side of more than data.context={self.context} "
                f"tokens: set data.context={int(longest(train).max())}, or give shorter texts."
            )
        if not fits.all():
            log.warning(
                "%s of %s training pairs have a side of more than data.context=%s tokens and are left out.",
                int((~fits).sum()), len(fits), self.context,
            )  # fmt: skip
        for name, split in (("validation", val), ("test", test)):
            if (most := int(longest(split).max())) > self.context:
                raise DataError(
                    f"pair {int(longest(split).argmax()) + 1} of the {name} split has a side of {most} tokens, and no "
                    f"held-out pair is left out: set data.context={most}, or shorten it."
                )
        self.train: Split = train[0][fits], train[1]
        self.val: Split = val
        self.test: Split = test

    def encode(self, pairs: list[TextPair]) -> Split:
        """Where the sources and targets begin and end, int64 (N, 2, 2), and the stream of tokens, int32 (L,)."""
        end = torch.tensor([self.tokenizer.end], dtype=torch.int32)
        texts = self.tokenizer.encode_all(self.texts_of(pairs))
        ends = torch.tensor([len(ids) + 1 for ids in texts]).cumsum(0).view(-1, 2)
        begins = torch.cat([ends.new_zeros(1), ends.flatten()[:-1]]).view(-1, 2)
        return torch.stack([begins, ends], 2), torch.cat([part for ids in texts for part in (ids, end)])

    def train_sampler(self, rank: int, world: int) -> ShuffledSampler:
        """Batches of about equally long pairs: by their targets, and those of equal targets by their sources."""
        source, target = (self.train[0][:, :, 1] - self.train[0][:, :, 0]).unbind(1)
        return LengthBucketSampler(target * (self.context + 1) + source, self.batch_size, self.seed, rank, world)

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Sources (B, S) and targets (B, T), int64, each with its end and then `ABSENT`."""
        places, stream = split
        source, target = places[indices].unbind(1)  # (B, 2) each
        return padded(stream, source), padded(stream, target)


def longest(split: Split) -> Tensor:
    """Tokens of each pair's longer side, with its end: (N,)."""
    return (split[0][:, :, 1] - split[0][:, :, 0]).amax(1)


def padded(stream: Tensor, places: Tensor) -> Tensor:
    """The stretches from places[:, 0] to places[:, 1] as rows of equal length: int64 (B, T)."""
    begin, length = places[:, :1], places[:, 1:] - places[:, :1]
    column = torch.arange(int(length.max()))
    rows = stream[(begin + column).clamp(max=len(stream) - 1)].long()
    return rows.masked_fill(column >= length, ABSENT)


@register("data", "pairs")
class Pairs(PairData):
    """Your own pairs: a folder with train.de and train.en, line by line, or .tsv or .jsonl files.

    A folder holds `train.SOURCE` and `train.TARGET`, or `train.tsv`, or `train.jsonl`, and may hold `val` (also
    `valid`, `validation`, `dev`) and `test` in the same form. A single file (.tsv or .jsonl) is all there is. Without
    a validation file, a twentieth of the pairs, drawn by `split_seed`, is for validation and as many for testing; with
    one and no test file, it serves for both.

    Args:
        path: the folder or file; None is `$ZOO_DATA/pairs`.
        source: ending of line files, such as de; column of a TSV by its heading (None: the first, and no heading);
            field of JSON lines (None: source, question, document, prompt or input, whichever there is).
        target: likewise: en; the second column; target, answer, summary, completion or output.
        split_seed: of the pairs that are held out.
        context: most tokens of a text with its end.
        tokenizer: fitted to both sides of the training part.
        batch_size: pairs a batch.
        seed: of their order.
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
            raise DataError("data.source and data.target name the two sides of pairs: give both, or neither.")

    def read(self) -> Parts:
        """All files.

        Raises:
            DataError: nothing there, or it holds no pairs.
        """
        place = Path(self.path).expanduser() if self.path else data_root(None) / "pairs"
        if not place.exists():
            raise DataError(f"there is no file or folder {place}: give yours as data.path=PATH.")
        found = self.part(place.parent, place.name) if place.is_file() else self.part(place, "train")
        if found is None:
            wanted = f"train.{self.source or 'SOURCE'} and train.{self.target or 'TARGET'}"
            raise DataError(
                f"folder {place} has no training pairs: it must hold {wanted} (with data.source and data.target), "
                f"train.tsv or train.jsonl."
            )
        held = {
            name: next((pairs for stem in stems if (pairs := self.part(place, stem)) is not None), None)
            for name, stems in HELD_OUT.items()
            if place.is_dir()
        }
        val, test = held.get("val"), held.get("test")
        if val is not None:
            return found, val, val if test is None else test
        share = max(len(found) // 20, 1)
        if len(found) < 3:
            raise DataError(
                f"{place} has {len(found)} pairs, too few to hold some out: give at least 3, or a val file."
            )
        order = torch.randperm(len(found), generator=make_generator(self.split_seed)).tolist()
        first, second = sorted(order[:share]), sorted(order[share : 2 * share])
        rest = sorted(order[2 * share :] if test is None else order[share:])
        val, drawn, train = ([found[i] for i in some] for some in (first, second, rest))
        return train, val, drawn if test is None else test

    def part(self, folder: Path, stem: str) -> list[TextPair] | None:
        """The pairs of one split, or None where there is no such file."""
        named = folder / stem
        if named.suffix in (".tsv", ".jsonl") and named.is_file():
            return (
                from_tsv(named, self.source, self.target)
                if named.suffix == ".tsv"
                else from_jsonl(named, self.source, self.target)
            )
        if named.is_file() and named.suffix:
            raise DataError(f"{named} is neither .tsv nor .jsonl: give one of these, or a folder, as data.path.")
        for ending in (".tsv", ".jsonl"):
            if (folder / f"{stem}{ending}").is_file():
                return self.part(folder, f"{stem}{ending}")
        if self.source and self.target and (folder / f"{stem}.{self.source}").is_file():
            return from_lines(folder / f"{stem}.{self.source}", folder / f"{stem}.{self.target}")
        return None


@register("data", "multi30k")
class Multi30k(PairData):
    """Multi30k (Elliott et al. 2016, 1605.00459): 29,000 descriptions of pictures in English, German and French.

    In `multi30k/{train,val,test_2016_flickr}.{de,en,fr}`; 1,014 pairs are for validation, 1,000 for testing.
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
            raise DataError(f"data.source and data.target are both {source}: choose two of de, en and fr.")

    def read(self) -> Parts:
        """Two files a split.

        Raises:
            DataError: they are not there.
        """
        folder = data_root(self.path) / "multi30k"
        if not (folder / f"train.{self.source}").is_file():
            raise DataError(f"there is no {folder}/train.{self.source}: save the files of {self.SOURCE} there, or set "
                           f"data.path or $ZOO_DATA.")  # fmt: skip
        names = ("train", "val", "test_2016_flickr")
        train, val, test = (from_lines(folder / f"{n}.{self.source}", folder / f"{n}.{self.target}") for n in names)
        return train, val, test


def lines(path: Path) -> list[str]:
    """The lines of a text file; a last line break ends the last line."""
    text = decode_file(path)
    return text.removesuffix("\n").split("\n") if text else []


def from_lines(source: Path, target: Path) -> list[TextPair]:
    """Line n of the one file belongs to line n of the other.

    Raises:
        DataError: one is not there or empty, or they differ in length.
    """
    if not target.is_file():
        raise DataError(f"{source} has no {target.name} beside it: each of its lines needs one there.")
    one, two = lines(source), lines(target)
    if len(one) != len(two):
        raise DataError(
            f"{source} has {len(one)} lines and {target.name} has {len(two)}: line n of the one must be the "
            f"translation of line n of the other."
        )
    return require_pairs(list(zip(one, two, strict=True)), source)


def from_tsv(path: Path, source: str | None, target: str | None) -> list[TextPair]:
    """Two columns of a file with tabs between them; without names the first two.

    Raises:
        DataError: a line without them, or no such heading.
    """
    rows = list(csv.reader(lines(path), delimiter="\t", quoting=csv.QUOTE_NONE))
    columns, first = (0, 1), 0
    if source is not None and target is not None:
        heading = rows[0] if rows else []
        for name in (source, target):
            if name not in heading:
                have = ", ".join(heading) or "nothing"
                raise DataError(f"{path} has no column {name} in its first line (have: {have}).")
        columns, first = (heading.index(source), heading.index(target)), 1
    for number, row in enumerate(rows[first:], first + 1):
        if len(row) <= max(columns):
            raise DataError(f"line {number} of {path} has {len(row)} columns, too few for a pair: separate the two "
                           f"texts by a tab.")  # fmt: skip
    return require_pairs([(row[columns[0]], row[columns[1]]) for row in rows[first:]], path)


def from_jsonl(path: Path, source: str | None, target: str | None) -> list[TextPair]:
    """One object a line, with two fields of text.

    Raises:
        DataError: a line that is none, or lacks a field.
    """
    pairs: list[TextPair] = []
    for where, values in jsonl(path):
        if source is None or target is None:
            source, target = next((f for f in FIELDS if values.keys() >= set(f)), (None, None))
        if source is None or target is None:
            have = ", ".join(map(str, values)) or "nothing"
            raise DataError(f"{where} has the fields {have}: say which are the pair by data.source and "
                           f"data.target.")  # fmt: skip
        for name in (source, target):
            if not isinstance(values.get(name), str):
                what = "no text in its field" if name in values else "no field"
                raise DataError(f"{where} has {what} {name}: every line needs it.")
        pairs.append((values[source], values[target]))
    return require_pairs(pairs, path)


def require_pairs(pairs: list[TextPair], path: Path) -> list[TextPair]:
    """The pairs, if there are any.

    Raises:
        DataError: there are none.
    """
    if not pairs:
        raise DataError(f"{path} holds no pairs: it is empty.")
    return pairs
