"""`zoo index`, `zoo search` and `zoo ask`: files, a text encoder, pictures, and answers that cite their sources."""

import pytest
from typer.testing import CliRunner

import zoo
from zoo.cli.main import app
from zoo.retrieval.answer import answer, fill
from zoo.retrieval.build import build_index, embedder_of, search
from zoo.retrieval.chunks import chunks
from zoo.retrieval.index import Hit, Index


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False).output


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    (folder / "cats.md").write_text("# Cats\n\nA cat purrs.\n\nThe black cat sleeps all day.\n", encoding="utf-8")
    (folder / "dogs.txt").write_text("A dog barks at the moon.", encoding="utf-8")
    (folder / "data.bin").write_bytes(b"\0\1")
    return folder


def test_chunks_are_parts_of_the_text_and_cover_it():
    text = "One two three.\n\n  Four five.\n\n\n" + " ".join(f"w{i}" for i in range(40)) + "\n\nEnd.\n"
    for size, overlap in ((10, 3), (5, 0), (100, 20)):
        parts = list(chunks(text, size, overlap))
        assert all(text[c.begin : c.end] == c.text and 0 < len(c.text.split()) <= size for c in parts)
        assert {word for c in parts for word in c.text.split()} == set(text.split())
        assert [c.begin for c in parts] == sorted(c.begin for c in parts)
    shared = [c.text.split() for c in chunks(text, 10, 3) if "w9" in c.text.split()]
    assert [words[0] for words in shared] == ["w0", "w7"], "parts of one paragraph overlap by three words"
    assert list(chunks(" \n\n ")) == []


def test_files_are_searched_by_words(tmp_path, library):
    out = run("index", "--files", library, "--out", tmp_path / "ix", "--size", 8)
    assert "3 items" in out
    found = run("search", tmp_path / "ix", "sleeping black cats? black!")
    assert found.splitlines()[0].endswith("The black cat sleeps all day.")
    assert "begin=" in found
    assert "dog" not in found
    assert "dog barks" in run("search", tmp_path / "ix", "moon", "--where", f"source={library}/dogs.txt")
    assert run("search", tmp_path / "ix", "moon", "--where", f"source={library}/cats.md") == ""
    with pytest.raises(zoo.ZooError, match="one of a query"):
        run("search", tmp_path / "ix")
    with pytest.raises(zoo.ZooError, match="without a model"):
        embedder_of(Index(tmp_path / "ix"))
    with pytest.raises(zoo.ZooError, match="nothing to index"):
        build_index(tmp_path / "none")


class Echo:
    """A model of text that repeats the end of its prompt."""

    registered_name, abilities = "echo", {"generate": ""}

    class tokenizer:
        encode_prompt = staticmethod(str.split)

    class spec:
        class tokens:
            length = 30

    def generate(self, prompts, **options):
        self.options = options
        return [type("Done", (), {"text": " " + prompt.split()[-2] + " "})() for prompt in prompts]


def test_answers_cite_passages_that_fit_the_context():
    hits = [Hit(i, 1.0, f"passage number {i} " + "word " * 5) for i in (1, 2, 3, 4)]
    found = answer(Echo(), "who?", hits, max_new_tokens=5)
    assert len(found.prompt.split()) <= 25
    assert found.sources == tuple(hits[: len(found.sources)])
    assert len(found.sources) + found.left_out == 4
    assert 0 < found.left_out < 4
    assert found.text == "who?"
    assert found.prompt.startswith("[1] passage number 1 ")
    longer = len(fill("{passages} {question}", "who?", hits[: len(found.sources) + 1]).split())
    assert longer + 2 > 25, "one more would not fit"
    with pytest.raises(zoo.ZooError, match="longer than the context"):
        answer(Echo(), "who? " * 40, hits, max_new_tokens=5)
    with pytest.raises(zoo.ZooError, match="passages"):
        fill("{question}", "who?", hits)


def test_what_passages_say_is_not_a_place_of_the_template():
    hits = [Hit(1, 1.0, "{question} {passages}")]
    assert fill("{passages} Q {question}", "{passages}?", hits) == "[1] {question} {passages} Q {passages}?"


def test_search_without_vectors_is_bm25(tmp_path, library):
    index = build_index(tmp_path / "ix", files=[library], size=8)
    assert search(index, "moon")[0] == index.search_text("moon")[0]
