"""Text as windows of tokens: Python's own library source and documentation, Shakespeare, any folder of files.

A split is one stream of tokens, `<end> text <end> text <end>`. A window of context + 1 tokens gives
x = window[:-1] and y = window[1:].
"""

import ast
import io
import re
import sysconfig
import tokenize
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from zoo import registry
from zoo.data.base import DataModule, Split, data_root
from zoo.data.loader import IndexLoader
from zoo.data.tokenizers import Tokenizer, dumps
from zoo.errors import ZooError
from zoo.registry import Part, register
from zoo.spec import DataSpec, PositiveInt

TokenizerChoice = Annotated[str | dict[str, Any], Part("tokenizer")]
Texts = tuple[list[str], list[str], list[str]]  # training, validation, test

LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}
# Where a function or class at the margin begins, with the decorators right above it.
TOP_LEVEL = re.compile(r"^(?:@[^\n]*\n(?:[ \t)][^\n]*\n)*)*(?:async def|def|class) ", re.MULTILINE)
TABLES = {"encodings", "pydoc_data"}  # generated files: code pages, and the text that `pydoc` below reads


class TextData(DataModule):
    """Text in three splits, tokenised; a subclass says where the texts come from.

    Training: an epoch draws one window from each stretch of `context` tokens, beginning at a random place
    in it, so it goes over the corpus once. Held out: every token is scored exactly once, in windows side by side; where
    the last one is incomplete, y is -100.
    """

    python: ClassVar[bool] = False  # are the texts source code that Python can parse?

    def __init__(self, context: int, tokenizer: str | dict[str, Any], batch_size: int, seed: int) -> None:
        super().__init__(batch_size, seed)
        self.context = context
        self.tokenizer: Tokenizer = registry.build("tokenizer", tokenizer, where="data.tokenizer")
        self._texts: Texts | None = None

    def read(self) -> Texts:
        """The texts of each split."""
        raise NotImplementedError

    @property
    def texts(self) -> Texts:
        """The texts of each split; reading them once also fits the tokenizer to the training texts."""
        if self._texts is None:
            self._texts = self.read()
            self.tokenizer.fit(self._texts[0])
        return self._texts

    @property
    def spec(self) -> DataSpec:
        """Windows of tokens, and the tokenizer as a string; this reads the corpus, as its vocabulary comes from it."""
        _ = self.texts
        return DataSpec(
            "tokens",
            (self.context,),
            vocab_size=self.tokenizer.vocab_size,
            tokenizer=dumps(self.tokenizer),
            name=self.registered_name,
        )

    def load(self) -> None:
        """Tokenise.

        Raises:
            ZooError: fewer training tokens than one window.
        """
        streams = [self.join(self.tokenizer.encode_all(texts)) for texts in self.texts]
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

    def excerpts(self, split: str, n: int, length: int) -> list[str]:
        """n texts of at most so many tokens from a split, evenly spaced: whole ones if enough are short, or pieces."""
        texts = self.texts[("train", "val", "test").index(split)]
        whole = [text for text in texts if text and len(self.tokenizer.encode(text)) <= length]
        if len(whole) < n:
            stream = self.join(self.tokenizer.encode_all(texts))
            starts = torch.linspace(0, max(len(stream) - length, 0), n).long().tolist()
            return [self.tokenizer.decode(stream[start : start + length].tolist()) for start in starts]
        return whole[:: len(whole) // n][:n]

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
        starts, stream = split
        begin = starts[indices]
        if train:  # somewhere in its own stretch; the last stretch ends where no whole window is left
            room = (len(stream) - self.context - begin).clamp(max=self.context)
            begin = begin + (torch.rand(len(begin), generator=generator, dtype=torch.float64) * room).long()
        places = begin[:, None] + torch.arange(self.context + 1)  # (B, context + 1)
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
    try:
        text = raw.decode("utf-8-sig")
        if "\0" not in text:
            return text.replace("\r\n", "\n")
        reason = f"a zero byte at position {raw.index(0)}"
    except UnicodeDecodeError as error:
        reason = f"byte {raw[error.start]:#04x} at position {error.start} is not UTF-8"
    raise ZooError(f"{path} is not a text file ({reason}): leave it out with data.pattern, or convert it to UTF-8.")


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


def by_name(documents: Iterator[tuple[str, list[str]]]) -> Texts:
    """(name, texts) pairs dealt out by a checksum of the name: of 50, one for validation and one for testing.

    A name keeps its split whatever else there is, so splits agree between Python versions.
    """
    splits: Texts = ([], [], [])
    for name, texts in documents:
        splits[{0: 1, 1: 2}.get(zlib.crc32(name.encode()) % 50, 0)].extend(texts)
    return splits


def definitions(source: str) -> list[str]:
    """Source cut before each function and class at the margin; what precedes the first one is a part too.

    Decorators go with what they decorate.
    """
    cuts = [match.start() for match in TOP_LEVEL.finditer(source)]
    bounds = [0, *(cut for cut in cuts if cut), len(source)]
    return [source[i:j] for i, j in pairwise(bounds) if j > i]


def library() -> Iterator[tuple[str, str]]:
    """(path within the library, source) of the running Python's standard library, sorted, without tests and tables.

    Raises:
        ZooError: this Python has no source files.
    """
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path.relative_to(root) for path in root.rglob("*.py"))
    kept = [
        path for path in paths if not (LEFT_OUT | TABLES) & set(path.parts) and not path.name.startswith("_sysconfig")
    ]
    if not kept:
        raise ZooError(
            f"this Python keeps no library source in {root}: use data=text data.root=FOLDER, or another Python."
        )
    for path in kept:
        try:
            with tokenize.open(root / path) as file:  # in the encoding that the file declares
                yield path.as_posix(), file.read()
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            raise ZooError(f"{root / path} cannot be read ({error}): repair the Python installation.") from error


def code_only(source: str) -> str:
    """Python source without docstrings, comments and the blank lines around them; a body that was but a docstring
    becomes `pass`.
    """
    lines: list[str | None] = [*source.splitlines(), ""]
    inside: set[int] = set()  # lines that a string goes on over
    statements = [(tokenize.INDENT, 0, 0)]  # (kind of token, first line, last line), without comments and line ends
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        (row, column), end = token.start, token.end[0]
        line = lines[row - 1]
        if end > row:
            inside.update(range(row - 1, end))
        if token.type == tokenize.COMMENT and line is not None:
            lines[row - 1] = line[:column].rstrip() or None
        elif token.type not in (tokenize.COMMENT, tokenize.NL):
            statements.append((token.type, row - 1, end))
    for (before, _, _), (kind, first, last), (after, _, _), (then, _, _) in zip(
        statements, statements[1:], statements[2:], statements[3:], strict=False
    ):
        if (before, kind, after) == (tokenize.INDENT, tokenize.STRING, tokenize.NEWLINE):  # opens a body, alone
            text = lines[first] or ""
            lines[first:last] = [None] * (last - first)
            if then == tokenize.DEDENT:
                lines[first] = text[: len(text) - len(text.lstrip())] + "pass"
    kept: list[str] = []
    for number, line in enumerate(lines):
        follows = kept and kept[-1].strip() and not kept[-1].endswith(":")
        if line is not None and (line.strip() or follows or number in inside):
            kept.append(line)
    return "\n".join(kept)


@register("data", "stdlib")
class Stdlib(TextData):
    """The source of Python's own standard library, as found on this machine: real text in every installation.

    A text is one function or class, or what precedes the first one in a file, so that a text written from nothing
    is a whole definition; the texts of a file follow each other. Without `prose`, docstrings and comments are left
    out, and with them the English, which takes most of a small model's effort.
    Tests, idlelib, lib2to3, installed packages and generated tables are left out. Split by file: those whose
    path has a CRC-32 of 0 modulo 50 are for validation, 1 for testing, all others for training.
    """

    python = True

    def __init__(
        self,
        *,
        prose: bool = True,
        context: PositiveInt = 256,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.prose = prose

    def read(self) -> Texts:
        """The definitions of every file."""
        sources = ((name, source if self.prose else code_only(source)) for name, source in library())
        return by_name((name, definitions(source)) for name, source in sources)


@register("data", "pydoc")
class Pydoc(TextData):
    """English: the language reference and every docstring of Python's standard library, from this machine.

    Split by topic and file, like `stdlib`.
    """

    def __init__(
        self,
        *,
        context: PositiveInt = 256,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)

    def read(self) -> Texts:
        """One text per topic, and one with the docstrings of each file."""
        return by_name(self.documents())

    @staticmethod
    def documents() -> Iterator[tuple[str, list[str]]]:
        """(topic or path, [text])."""
        try:
            from pydoc_data import topics
        except ImportError:  # some distributions ship it apart; the docstrings are enough
            pass
        else:
            yield from ((name, [text]) for name, text in sorted(topics.topics.items()))
        for name, source in library():
            nodes = (n for n in ast.walk(ast.parse(source)) if isinstance(n, _DOCUMENTED))
            found = [text for node in nodes if (text := ast.get_docstring(node))]
            if found:
                yield name, ["\n\n".join(found) + "\n"]


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


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
        if not place.exists():
            raise ZooError(f"there is no file or folder {place}: give yours as data.root=PATH.")
        files = [place] if place.is_file() else sorted(p for p in place.rglob(self.pattern) if p.is_file())
        if not files:
            raise ZooError(
                f"folder {place} has no file that matches {self.pattern}: put text there, or set data.pattern='*.md'."
            )
        train, val, test = cut([decode_file(path) for path in files], 0.9, 0.05)
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
