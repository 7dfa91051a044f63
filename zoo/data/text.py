"""Text as windows of tokens: Shakespeare, your own files; `zoo.data.stdlib` brings what comes with Python.

A split is one stream of tokens, `<end> text <end> text <end>`. A window of context + 1 tokens gives
x = window[:-1] and y = window[1:].
"""

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from zoo import registry
from zoo.data.base import DataModule, Split, data_root
from zoo.data.loader import IndexLoader
from zoo.data.tokenizers import Tokenizer, dumps, loads
from zoo.errors import ZooError
from zoo.registry import Part, register
from zoo.spec import DataSpec, Kind, PositiveInt

TokenizerChoice = Annotated[str | dict[str, Any], Part("tokenizer")]
Texts = tuple[list[str], list[str], list[str]]  # training, validation, test


class Tokenised(DataModule):
    """Texts in three splits, read once, with a tokenizer that is fitted to those of training or taken from a model.

    A subclass writes `read`, and `sides` where a sample is more than one text.
    """

    kind: ClassVar[Kind] = "tokens"

    def __init__(self, context: int, tokenizer: str | dict[str, Any], batch_size: int, seed: int) -> None:
        super().__init__(batch_size, seed)
        self.context = context
        self.tokenizer: Tokenizer = registry.build("tokenizer", tokenizer, where="data.tokenizer")
        self.adopted = False  # is the tokenizer that of a model which was trained before?
        self._parts: Any = None

    def read(self) -> Any:
        """The texts for training, validation and testing."""
        raise NotImplementedError

    def sides(self, part: Any) -> list[str]:
        """Every text of a split."""
        return list(part)

    @property
    def parts(self) -> Any:
        """What `read` gives; reading it once also fits the tokenizer to the training texts."""
        if self._parts is None:
            self._parts = self.read()
            if not self.adopted:
                self.tokenizer.fit(self.sides(self._parts[0]))
        return self._parts

    @property
    def spec(self) -> DataSpec:
        """The context, and the tokenizer as a string; this reads the texts, as the vocabulary comes from them."""
        _ = self.parts
        return DataSpec(
            self.kind,
            (self.context,),
            vocab_size=self.tokenizer.vocab_size,
            tokenizer=dumps(self.tokenizer),
            name=self.registered_name,
        )

    def adopt(self, spec: DataSpec) -> None:
        """Take the tokenizer of a model that is trained on, instead of fitting one; before the data are read.

        Raises:
            ZooError: that model has none.
        """
        if not spec.tokenizer:
            raise ZooError(
                f"init_from holds a model of {spec}, which has no tokenizer that {self.registered_name} could use."
            )
        self.tokenizer, self.adopted = loads(spec.tokenizer), True


class TextData(Tokenised):
    """Text in three splits, tokenised; a subclass says where the texts come from.

    Training: an epoch draws one window from each stretch of `context` tokens, beginning at a random place
    in it, so it goes over the corpus once. Held out: every token is scored exactly once, in windows side by side; where
    the last one is incomplete, y is -100.
    """

    resident = True
    python: ClassVar[bool] = False  # are the texts source code that Python can parse?

    @property
    def texts(self) -> Texts:
        """The texts of each split."""
        return self.parts

    def load(self) -> None:
        """Tokenise.

        Raises:
            ZooError: fewer training tokens than one window.
        """
        streams = self.streams()
        length = len(streams[0])
        if length <= self.context:
            raise ZooError(
                f"the training text of {self.registered_name} has {length} tokens, which is less than one window of "
                f"data.context={self.context} and the token after it: give more text, or a context below "
                f"{length}."
            )
        starts = torch.arange(0, length - self.context, self.context)
        self.train: Split = starts, streams[0]
        self.val: Split = torch.arange(0, len(streams[1]) - 1, self.context), streams[1]
        self.test: Split = torch.arange(0, len(streams[2]) - 1, self.context), streams[2]

    def streams(self) -> list[Tensor]:
        """The tokens of each split, (N,)."""
        return [self.join(self.tokenizer.encode_all(texts)) for texts in self.texts]

    def excerpts(self, split: str, n: int, length: int) -> list[str]:
        """n texts of at most so many tokens from a split, evenly spaced: whole ones if enough are short, or pieces."""
        texts = self.texts[("train", "val", "test").index(split)]
        whole = [text for text in texts if text and len(self.tokenizer.encode(text)) <= length]
        if len(whole) < n:
            return self.pieces(self.join(self.tokenizer.encode_all(texts)), n, length)
        return whole[:: len(whole) // n][:n]

    def pieces(self, stream: Tensor, n: int, length: int) -> list[str]:
        """n pieces of a stream, of so many tokens each, evenly spaced."""
        starts = torch.linspace(0, max(len(stream) - length, 0), n, dtype=torch.float64).long().tolist()
        return [self.tokenizer.decode(stream[start : start + length].tolist()) for start in starts]

    def fitting_dataloader(self) -> IndexLoader:
        """The training text once, in order, in windows side by side like those held out."""
        stream = self.train[1]
        return self._held_out((torch.arange(0, len(stream) - 1, self.context), stream))

    def join(self, encoded: list[Tensor]) -> Tensor:
        """Texts, each followed by the end of text, and one before them all: int32 (N,)."""
        end = torch.tensor([self.tokenizer.end], dtype=torch.int32)
        return torch.cat([end, *(part for ids in encoded for part in (ids, end))])

    def fetch(self, split: Split, indices: Tensor, generator: torch.Generator, *, train: bool) -> Split:
        """Windows x int64 (B, context), and the tokens after each place."""
        starts, stream = (self.beside(indices, x) for x in split)
        begin = starts[indices]
        if train:  # somewhere in its own stretch; the last stretch ends where no whole window is left
            room = (len(stream) - self.context - begin).clamp(max=self.context)
            uniform = torch.rand(len(begin), generator=generator, dtype=torch.float64)
            begin = begin + (uniform.to(begin.device, non_blocking=True) * room).long()
        places = begin[:, None] + torch.arange(self.context + 1, device=begin.device)  # (B, context + 1)
        window = stream[places.clamp(max=len(stream) - 1)].long()
        y = window[:, 1:].masked_fill(places[:, 1:] >= len(stream), -100)
        return window[:, :-1], y


def decode_file(path: Path) -> str:
    """A UTF-8 text file.

    Raises:
        ZooError: unreadable, or not text.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ZooError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
    return decoded(raw, path)


def decoded(raw: bytes, path: Path, begin: int = 0) -> str:
    """UTF-8 bytes of a file, the first of which is at `begin`, as text.

    Raises:
        ZooError: they are not text.
    """
    try:
        text = raw.decode("utf-8" if begin else "utf-8-sig")
        if "\0" not in text:
            return text.replace("\r\n", "\n")
        reason = f"a zero byte at position {begin + raw.index(0)}"
    except UnicodeDecodeError as error:
        reason = f"byte {raw[error.start]:#04x} at position {begin + error.start} is not UTF-8"
    raise ZooError(f"{path} is not a text file ({reason}): leave it out with data.pattern, or convert it to UTF-8.")


def jsonl(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects in a file of one JSON object a line, each with its place as an error should name it.

    Raises:
        ZooError: a line that is none; blank ones are passed over.
    """
    found = []
    for number, line in enumerate(decode_file(path).split("\n"), 1):
        where = f"line {number} of {path}"
        if not line.strip():
            continue
        found.append((where, json_object(line, where)))
    return found


def json_object(line: str, where: str) -> dict[str, Any]:
    """A line of JSON.

    Raises:
        ZooError: it is none, or no object.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ZooError(f"{where} is not JSON ({error}): write one object a line.") from error
    if not isinstance(row, dict):
        raise ZooError(f"{where} is no JSON object: write one a line, with fields of text.")
    return row


def files_of(place: Path, pattern: str) -> list[Path]:
    """A file, or those of a folder whose names match, in the order of their paths.

    Raises:
        ZooError: nothing there, or nothing that matches.
    """
    if not place.exists():
        raise ZooError(f"there is no file or folder {place}: give yours as data.root=PATH.")
    files = [place] if place.is_file() else sorted(p for p in place.rglob(pattern) if p.is_file())
    if not files:
        raise ZooError(
            f"folder {place} has no file that matches {pattern}: put text there, or set data.pattern='*.md'."
        )
    return files


def cut(texts: list[str], *shares: float) -> list[list[str]]:
    """Texts cut by characters into consecutive parts that hold the given shares; the last part takes the rest."""
    total, parts, done = sum(map(len, texts)), [], 0
    rest = list(texts)
    for bound in [round(total * sum(shares[: i + 1])) for i in range(len(shares))]:
        part: list[str] = []
        while rest and done < bound:
            head, tail = rest[0][: bound - done], rest[0][bound - done :]
            part.append(head)
            done += len(head)
            rest = [tail, *rest[1:]] if tail else rest[1:]
        parts.append(part)
    return [*parts, rest]


@register("data", "text")
class Text(TextData):
    """Your own text: a UTF-8 file, or a folder of them in the order of their paths.

    Split by characters: the first 90 % are for training, the next 5 % for validation, the last 5 % for testing.

    Args:
        root: the file or folder; None is `$ZOO_DATA/text`.
        pattern: which files of a folder, searched in all its subfolders.
        context: tokens in a window.
        tokenizer: fitted to the training part.
        batch_size: windows a batch.
        seed: of the order and place of windows.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        pattern: str = "*.txt",
        context: PositiveInt = 256,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.root, self.pattern = root, pattern

    def read(self) -> Texts:
        """All files.

        Raises:
            ZooError: nothing there, or nothing that matches.
        """
        place = Path(self.root).expanduser() if self.root else data_root(None) / "text"
        train, val, test = cut([decode_file(path) for path in files_of(place, self.pattern)], 0.9, 0.05)
        return train, val, test


@register("data", "shakespeare")
class Shakespeare(TextData):
    """Tiny Shakespeare (Karpathy 2015): 1,115,394 characters of plays, in `tinyshakespeare/input.txt`.

    Split as usual: the first 90 % of the characters are for training, the last 10 % for validation, and for
    testing too.
    """

    SOURCE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"

    def __init__(
        self,
        *,
        root: str | None = None,
        context: PositiveInt = 256,
        tokenizer: TokenizerChoice = "char",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.root = root

    def read(self) -> Texts:
        """Cut the one file.

        Raises:
            ZooError: it is not there.
        """
        path = data_root(self.root) / "tinyshakespeare" / "input.txt"
        if not path.is_file():
            raise ZooError(f"there is no {path}: save {self.SOURCE} there, or set data.root or $ZOO_DATA.")
        train, val = cut([decode_file(path)], 0.9)
        return train, val, val
