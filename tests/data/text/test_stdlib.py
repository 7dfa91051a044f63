"""Python's standard library as text: files, splits, and omitted parts."""

import ast
import contextlib

import pytest

from zoo.data.text.stdlib import Pydoc, Stdlib, by_name, code_only, definitions, library


@pytest.fixture(scope="module")
def documents():
    return list(library())


def test_library_is_real_source_without_tests_and_tables(documents):
    names = [name for name, _ in documents]
    assert len(names) > 300
    assert names == sorted(names)
    assert {"abc.py", "json/decoder.py", "asyncio/events.py"} <= set(names)
    assert not [n for n in names if {"test", "tests", "site-packages", "idlelib", "encodings"} & set(n.split("/"))]
    assert sum(len(text) for _, text in documents) > 5_000_000


def test_splits_go_by_name_and_are_disjoint(documents):
    train, val, test = by_name((name, [text]) for name, text in documents)
    assert len(train) + len(val) + len(test) == len(documents)
    total = sum(len(text) for _, text in documents)
    for held in (val, test):
        assert 0.003 < sum(map(len, held)) / total < 0.05
    fewer = by_name((name, [text]) for name, text in documents[::2])
    assert set(fewer[1]) <= set(val)  # a file keeps its split whatever else there is
    assert set(fewer[2]) <= set(test)


def test_definitions_are_whole_and_keep_their_decorators():
    head, f, a, h = (
        "import a\n\n",
        "@x\n@y(1,\n   2\n)\ndef f():\n    pass\n\n",
        "class A:\n    def g(): ...\nx = 1\n",
        "async def h():\n  pass\n",
    )
    assert definitions(head + f + a + h) == [head, f, a, h]
    assert definitions(f + a) == [f, a]
    assert definitions("x = 1\n") == ["x = 1\n"]
    assert definitions("") == []


def test_most_definitions_of_the_library_parse(documents):
    parts = [part for name, source in documents[:60] for part in definitions(source)]
    assert "".join(parts) == "".join(source for _, source in documents[:60])
    parsed = 0
    for part in parts:
        with contextlib.suppress(SyntaxError):
            ast.parse(part)
            parsed += 1
    assert parsed > 0.9 * len(parts) > 300


def test_stdlib_and_pydoc_read(documents):
    data = Stdlib(tokenizer="byte", context=64)
    data.setup()
    assert data.spec.name == "stdlib"
    assert (data.train[1] == data.tokenizer.end).sum() == len(data.texts[0]) + 1
    train, val, test = Pydoc(tokenizer="byte").read()
    english = "".join(train + val + test)
    assert len(english) > 800_000
    assert english.count(" the ") > 5_000
    assert val
    assert test


# -- composing --------------------------------------------------------------------------------------------------------


SOURCE = """\
'''Module docstring.'''
# A comment.
import os  # why


def f(x):
    '''Docstring
    of two lines.'''

    # Another comment.
    return "# no comment"  # but this is


class Empty:
    '''Nothing else.'''


def g(): "on one line"
"""

CODE = """\
import os

def f(x):
    return "# no comment"

class Empty:
    pass

def g(): "on one line"
"""


def test_code_without_docstrings():
    assert code_only(SOURCE) == CODE


def test_code_without_docstrings_is_the_same_program(documents):
    """The syntax trees are equal except for the docstrings."""
    for name, source in documents[::15]:
        bare, whole = ast.parse(code_only(source)), ast.parse(source)
        for tree in (bare, whole):
            for node in ast.walk(tree):
                body = getattr(node, "body", None)
                if isinstance(body, list):
                    kept = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
                    node.body = [n for n in kept if not isinstance(n, ast.Pass)]
        assert ast.dump(bare) == ast.dump(whole), name
