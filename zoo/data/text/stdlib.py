"""Python's own standard library as text, in every installation: its source, and its documentation."""

import ast
import io
import re
import sysconfig
import tokenize
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.datamodule import Texts, TokenizerChoice, TokenWindows

LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}
# Where a function or class at the margin begins, with the decorators right above it.
TOP_LEVEL = re.compile(r"^(?:@[^\n]*\n(?:[ \t)][^\n]*\n)*)*(?:async def|def|class) ", re.MULTILINE)
TABLES = {"encodings", "pydoc_data"}  # generated files: code pages, and the text that `pydoc` below reads


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
        DataError: this Python has no source files.
    """
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path.relative_to(root) for path in root.rglob("*.py"))
    kept = [
        path for path in paths if not (LEFT_OUT | TABLES) & set(path.parts) and not path.name.startswith("_sysconfig")
    ]
    if not kept:
        raise DataError(
            f"this Python keeps no library source in {root}: use data=text data.path=FOLDER, or another Python."
        )
    for path in kept:
        try:
            with tokenize.open(root / path) as file:  # in the encoding that the file declares
                yield path.as_posix(), file.read()
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            raise DataError(f"{root / path} cannot be read ({error}): repair the Python installation.") from error


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
class Stdlib(TokenWindows):
    """The source of Python's own standard library, as found on this machine: real text in every installation.

    A text is one function or class, or what precedes the first one in a file, so that a text written from nothing
    is a whole definition; the texts of a file follow each other. Without `keep_docstrings`, docstrings and comments are left
    out, and with them the English, which takes most of a small model's effort.
    Tests, idlelib, lib2to3, installed packages and generated tables are left out. Split by file: those whose
    path has a CRC-32 of 0 modulo 50 are for validation, 1 for testing, all others for training.
    """

    python = True

    def __init__(
        self,
        *,
        keep_docstrings: bool = True,
        context: PositiveInt = 256,
        tokenizer: TokenizerChoice = "bpe",
        batch_size: PositiveInt = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(context, tokenizer, batch_size, seed)
        self.keep_docstrings = keep_docstrings

    def read(self) -> Texts:
        """The definitions of every file."""
        sources = ((name, source if self.keep_docstrings else code_only(source)) for name, source in library())
        return by_name((name, definitions(source)) for name, source in sources)


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@register("data", "pydoc")
class Pydoc(TokenWindows):
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
