"""Source code and documentation of Python's standard library as text."""

import ast
import io
import os
import re
import sysconfig
import tokenize
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.text.datamodule import Texts, TokenizerChoice, TokenWindows

LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}
# The start of a top-level function or class, with its decorators.
TOP_LEVEL = re.compile(r"^(?:@[^\n]*\n(?:[ \t)][^\n]*\n)*)*(?:async def|def|class) ", re.MULTILINE)
TABLES = {"encodings", "pydoc_data"}  # generated files: code pages, and the topics that `pydoc` below reads


def by_name(documents: Iterator[tuple[str, list[str]]]) -> Texts:
    """Split (name, texts) by the CRC-32 of the name modulo 50: 0 is for validation, 1 for testing.

    The split of a name does not depend on other names, so splits agree between Python versions.
    """
    splits: Texts = ([], [], [])
    for name, texts in documents:
        splits[{0: 1, 1: 2}.get(zlib.crc32(name.encode()) % 50, 0)].extend(texts)
    return splits


def definitions(source: str) -> list[str]:
    """Cut source before each top-level function and class, decorators included; the first part may be a header."""
    cuts = [match.start() for match in TOP_LEVEL.finditer(source)]
    bounds = [0, *(cut for cut in cuts if cut), len(source)]
    return [source[i:j] for i, j in pairwise(bounds) if j > i]


def library() -> Iterator[tuple[str, str]]:
    """Yield (relative path, source) of Python's standard library, sorted, without tests and generated tables.

    Raises:
        DataError: this Python does not have source files.
    """
    root, left_out = Path(sysconfig.get_path("stdlib")), LEFT_OUT | TABLES
    kept = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in left_out]  # installed packages may have 100,000 files
        chosen = [name for name in names if name.endswith(".py") and name not in left_out]
        kept += [Path(folder, name).relative_to(root) for name in chosen if not name.startswith("_sysconfig")]
    kept.sort()
    if not kept:
        raise DataError(f"data=stdlib: no library source in {root}. Use data=text data.path=FOLDER, or another Python.")
    for path in kept:
        try:
            with tokenize.open(root / path) as file:  # in the encoding that the file declares
                yield path.as_posix(), file.read()
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            raise DataError(f"{root / path} cannot be read ({error}). Repair the Python installation.") from None


def code_only(source: str) -> str:
    """Remove docstrings, comments and the blank lines around them; a body of only a docstring becomes `pass`."""
    lines: list[str | None] = [*source.splitlines(), ""]
    inside: set[int] = set()  # lines inside multi-line strings
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
        if (before, kind, after) == (tokenize.INDENT, tokenize.STRING, tokenize.NEWLINE):  # a docstring
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


@cache  # jobs of a sweep share it
def sources(keep_docstrings: bool) -> tuple[tuple[str, str], ...]:
    """(relative path, source) of the library, with docstrings and comments or without."""
    return tuple((name, source if keep_docstrings else code_only(source)) for name, source in library())


@register("data", "stdlib")
class Stdlib(TokenWindows):
    """Source code of Python's standard library on this machine.

    A text is one function or class, or the code before the first one in a file. Texts of a file are adjacent. Tests,
    idlelib, lib2to3, installed packages and generated tables are left out. Files are split by the CRC-32 of their path
    modulo 50: 0 is for validation, 1 for testing.

    Args:
        keep_docstrings: keep docstrings and comments. Without them a small model has only code to learn.
    """

    licence = "PSF-2.0"

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
        """Read the definitions of every file."""
        return by_name((name, definitions(source)) for name, source in sources(self.keep_docstrings))


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@register("data", "pydoc")
class Pydoc(TokenWindows):
    """English text: Python's language reference and the docstrings of its standard library, on this machine.

    Topics and files are split as in `stdlib`.
    """

    licence = "PSF-2.0"

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
        """Read one text per topic, and one with the docstrings of each file."""
        return by_name(self.documents())

    @staticmethod
    def documents() -> Iterator[tuple[str, list[str]]]:
        """Yield (topic or path, [text])."""
        try:
            from pydoc_data import topics
        except ImportError:  # a separate package in some distributions; the docstrings are enough
            pass
        else:
            yield from ((name, [text]) for name, text in sorted(topics.topics.items()))
        for name, source in library():
            nodes = (n for n in ast.walk(ast.parse(source)) if isinstance(n, _DOCUMENTED))
            found = [text for node in nodes if (text := ast.get_docstring(node))]
            if found:
                yield name, ["\n\n".join(found) + "\n"]
