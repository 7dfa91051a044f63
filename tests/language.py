"""Prose linter for vale's rule files, for machines without vale: `python tests/language.py [--failing] [PATH ...]`.

It reads the rule types existence, substitution and occurrence. Checked are Markdown, docstrings, comments,
and the messages of exceptions, warnings and prints. Code, fenced blocks and `code spans` are not checked.
"""

import ast
import io
import itertools
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
STYLE = ROOT / ".github/styles/Zoo"  # the one that `.vale.ini` names
CHECKED = ("README.md", ".github/**/*.md", "conf/**/*.yaml", "zoo/**/*.py", "tests/**/*.py", "train.py")
DIRECTIVE = re.compile(r"\s*(type:|noqa|pragma|ruff:|mypy:|!)")
YAML_COMMENT = re.compile(r"""((?:[^'"#]|(?<=\S)#|'[^']*'|"[^"]*")*)(?<!\S)#(.*)""")
UNCHECKED = re.compile(r"^ *(```|~~~).*?^ *\1[^\n]*$|<!--.*?-->|<[a-z/][^>]*>|^ *>>> [^\n]*", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(`+)[^`]+\1|(?<=\])\([^)\s]*\)|https?://\S+")
BLOCK = re.compile(r"\n[ \t]*\n|\n(?=\s*(?:[-*#|+] ?|\d+\. |[A-Za-z_, ]{1,40}: ))|(?<=\|)")
SENTENCE = re.compile(r"(?<=[.!?])[)\"']?\s+(?=[\"'(*_]*[A-Z0-9*])|\|")
MESSAGE = re.compile(r"(rank_zero_)?(warn|warning|info)|echo|print")
Prose = tuple[int, str, str]  # first line, text, scope: docstring, comment, error, message or text


@cache
def rules() -> list[tuple[str, dict, list[tuple[re.Pattern[str], str]]]]:
    """Read the rules, and compile each to pairs of pattern and replacement in the way vale does."""
    out = []
    for file in sorted(STYLE.glob("*.yml")):
        rule = yaml.safe_load(file.read_text())
        template = r"(?m)(?:{})" if rule.get("nonword") or "token" in rule else r"(?m)\b(?:{})\b"
        swap = rule.get("swap") or {rule["token"] if "token" in rule else "|".join(rule["tokens"]): ""}
        flags = re.IGNORECASE if rule.get("ignorecase") else 0
        out.append((file.stem, rule, [(re.compile(template.format(bad), flags), good) for bad, good in swap.items()]))
    return out


def literal(node: ast.expr) -> str:
    """Return the text of a string expression, with `*` for each computed part."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(literal, parts))
    return "*"


def python_prose(source: str) -> Iterator[Prose]:
    """Yield docstrings, messages and comments."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() if ast.get_docstring(node):
                yield node.body[0].lineno, literal(node.body[0].value), "docstring"
            case ast.Raise(exc=ast.Call(args=[first, *_])):
                yield first.lineno, literal(first), "error"
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=[first, *_]) if MESSAGE.fullmatch(
                name
            ):
                yield first.lineno, literal(first), "message"
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    yield from comments((*t.start, t.line[: t.start[1]], t.string[1:]) for t in tokens if t.type == tokenize.COMMENT)


def yaml_prose(source: str) -> Iterator[Prose]:
    """Yield comments. The one on the first line, which `zoo list` shows, counts as a docstring."""
    found = ((n, YAML_COMMENT.match(line)) for n, line in enumerate(source.splitlines(), 1))
    for line, text, scope in comments((n, len(m[1]), m[1], m[2]) for n, m in found if m):
        yield line, text, "docstring" if line == 1 else scope


def comments(found: Iterable[tuple[int, int, str, str]]) -> Iterator[Prose]:
    """Join comments (line, column, code before it, text) on consecutive lines without code."""
    blocks: list[tuple[int, int, list[str]]] = []
    for line, column, before, text in found:
        if blocks and not before.strip() and blocks[-1][1] == column and blocks[-1][0] + len(blocks[-1][2]) == line:
            blocks[-1][2].append(text)
        elif not DIRECTIVE.match(text):
            blocks.append((line, column, [text]))
    yield from ((line, "\n".join(texts), "comment") for line, _, texts in blocks)


def pieces(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, str]]:
    """Split at a pattern, and yield each part with its offset."""
    cuts = [(0, 0), *(m.span() for m in pattern.finditer(text)), (len(text), 0)]
    yield from ((a[1], text[a[1] : b[0]]) for a, b in itertools.pairwise(cuts))


def alerts(path: Path) -> list[tuple[int, str]]:
    """Apply every rule to a file: pairs of line and message."""
    out, read = set(), {".py": python_prose, ".yaml": yaml_prose}.get(path.suffix, lambda source: [(1, source, "text")])
    for line, text, scope in read(path.read_text(encoding="utf-8")):
        for hidden, mark in ((UNCHECKED, " "), (SPAN, "*")):
            text = hidden.sub(lambda m, mark=mark: re.sub(r"[^\n]", mark, m[0]), text)
        text = re.sub(r"[ \t]*\n[ \t]*", "\n", text)
        for name, rule, patterns in rules():
            wanted = rule["scope"].split(".")[-1]
            blocks = [(0, text)] if wanted in ("docstring", "error") else list(pieces(BLOCK, text))
            if wanted == "sentence":
                blocks = [(at + offset, part) for at, block in blocks for offset, part in pieces(SENTENCE, block)]
            for at, block in blocks if wanted in ("text", "sentence", scope) else ():
                for pattern, good in patterns:
                    hits = list(pattern.finditer(block.replace("\n", " ")))
                    for hit in hits if "max" not in rule else hits[rule["max"] :][:1]:
                        message = (
                            rule["message"] % ((good, hit[0]) if good else (hit[0],))[: rule["message"].count("%s")]
                        )
                        out.add((line + text.count("\n", 0, at + hit.start()), f"{message} (Zoo.{name})"))
    return sorted(out)


def checked() -> list[str]:
    """List the files that the rules cover."""
    return sorted({p.relative_to(ROOT).as_posix() for pattern in CHECKED for p in ROOT.glob(pattern)})


if __name__ == "__main__":
    names = [a for a in sys.argv[1:] if a != "--failing"] or checked()
    failing = {n: found for n in names if (found := alerts(ROOT / n))}
    print(
        *failing if "--failing" in sys.argv else (f"{n}:{a}: {b}" for n, found in failing.items() for a, b in found),
        sep="\n",
    )
    sys.exit(bool(failing))
