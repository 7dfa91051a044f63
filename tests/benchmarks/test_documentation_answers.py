"""Questions about documentation: facts are in the passages, probabilities sum to one, and copying needs the passage."""

import ast

import pytest
import torch

from zoo.benchmarks.copying_reader import CopyingReader, Example, train_reader
from zoo.benchmarks.documentation_answers import ask, function_of, questions_of, share_and_error
from zoo.data.text.word_shapes import shape_of, tokenise
from zoo.retrieval.index import Index

SOURCE = '''
def {name}(text, {argument}={value}, *, flag=None):
    """Change a text.

    Raises ValueError for an empty one.
    """
'''


def function(module: str, name: str, argument: str, value: str):
    node = ast.parse(SOURCE.format(name=name, argument=argument, value=value)).body[0]
    assert isinstance(node, ast.FunctionDef)
    return function_of(module, node, ast.get_docstring(node) or "")


def test_words_and_shapes() -> None:
    assert tokenise("os.path.join(a, b='x', n=1e-9)") == [
        "os.path.join", "join", "(", "a", ",", "b", "=", "'x'", ",", "n", "=", "1e", "-", "9", ")"
    ]  # fmt: skip
    assert shape_of("HTTPError404") == "<Aa0>"
    assert shape_of("abc") == shape_of("x") == "<a>"
    assert shape_of("'utf-8'") == "<'a-0'>"
    assert shape_of("abc") != shape_of("abc_d")


def test_questions_have_their_answers_in_the_passage() -> None:
    f = function("tools.text", "shorten", "width", "70")
    assert f.passage.startswith("tools.text.shorten(text, width=70, flag=None) Change a text. Raises ValueError")
    found = {(q.kind, q.text): q.answers for q in questions_of([f])}
    assert found == {
        ("default", "What is the default of width in tools.text.shorten?"): {"70"},
        ("default", "What is the default of flag in tools.text.shorten?"): {"None"},
        ("first", "What is the first argument of tools.text.shorten?"): {"text"},
        ("module", "Which module has the function shorten?"): {"tools.text.shorten"},
        ("exception", "Which exception does tools.text.shorten raise?"): {"ValueError"},
    }
    twice = questions_of([f, function("other", "shorten", "width", "7")])
    assert not [q for q in twice if q.kind == "module"], "the name is in two modules"


def test_probabilities_sum_to_one_over_places_and_entries() -> None:
    torch.manual_seed(0)
    examples = [Example("what is b", "a = 1 b = 2", frozenset({"2"})), Example("what is a", "", frozenset({"1"}))]
    reader = CopyingReader(["a", "b", "<0>", "="], ["1", "7"], dim=8)
    scores, read = reader.log_probs([(e.question, e.passage) for e in examples])
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(2))
    assert scores.shape == (2, 7 + 2)
    assert scores[1, :7].exp().sum() == 0, "nothing to copy"
    # by hand: the places of the word "2", which is not in the list; the entry "1"
    expected = [scores[0, read[0].index("2")], scores[1, 7]]
    torch.testing.assert_close(reader.log_likelihood(examples), torch.stack(expected))
    assert reader.log_likelihood([Example("what is a", "", frozenset({"2"}))]).isneginf().all()


def test_padding_has_no_effect() -> None:
    torch.manual_seed(0)
    reader = CopyingReader(["a", "b", "<0>", "="], ["1", "7"], dim=8)
    short, long = ("what is b", "a = 1 b = 2"), ("what is a then b", "a = 1 b = 2 a = 3 b = 4 a b a b")
    alone, _ = reader.log_probs([short])
    both, _ = reader.log_probs([short, long])
    torch.testing.assert_close(both[0, :6], alone[0, :6])
    torch.testing.assert_close(both[0, -2:], alone[0, -2:])


def test_words_that_were_never_seen_are_copied_from_the_retrieved_passage(tmp_path) -> None:
    names = [f"{'abcdefgh'[i % 8]}{'xyz'[i % 3]}{i}q" for i in range(120)]
    every = [function(f"{'tuv'[i % 3]}{i}w", name, f"{name[:2]}arg", str(1000 + i)) for i, name in enumerate(names)]
    questions = [q for q in questions_of(every) if q.kind == "default" and "1" in min(q.answers)]
    train, test = questions[:80], questions[80:]
    reader = train_reader([q.example for q in train], [q.function.passage for q in train], steps=60, batch_size=32)
    index = Index.create(tmp_path / "ix")
    index.add(None, [f.passage for f in every], [{"function": f"{f.module}.{f.name}"} for f in every])
    found = {name: sum(right) / len(right) for name, right in ask(reader, index, test).items()}
    assert found["right passage"] > 0.9
    assert found["retrieved passage"] > 0.9
    assert found["no passage"] == 0, "these numbers are only in the passages"
    assert found["a random passage"] < 0.1
    wrong = [q.function for q in test]
    assert not any(reader.answer(q.text, f.passage) in q.answers for q, f in zip(test, wrong[1:], strict=False))


def test_the_interval_is_that_of_a_share() -> None:
    share, half = share_and_error([True] * 80 + [False] * 20)
    assert share == 0.8
    assert half == pytest.approx(1.96 * 0.04)
