"""`zoo index`, `zoo search` and `zoo ask`: files, a text encoder, pictures, and answers that cite their sources."""

import pytest
from PIL import Image
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


def test_an_index_is_changed(tmp_path, library):
    out = tmp_path / "ix"
    run("index", "--files", library / "cats.md", "--out", out, "--size", 8)
    assert "3 items" in run("index", "--files", library / "dogs.txt", "--out", out, "--add")
    assert "dog barks" in run("search", out, "moon")
    told = run("index", "--out", out, "--delete", f"source={library}/dogs.txt", "--delete", 1, "--compact")
    assert told.splitlines() == [f"{out}: 2 items deleted", f"{out}: 1 item"]
    assert run("search", out, "moon") == ""
    assert len(run("search", out, "cat").splitlines()) == 1
    with pytest.raises(zoo.ZooError, match="not a filter"):
        run("index", "--out", out, "--delete", "dogs")
    with pytest.raises(zoo.ZooError, match="Make an index: zoo index"):
        run("index", "--out", tmp_path / "none", "--compact")
    with pytest.raises(zoo.ZooError, match="not empty"):
        run("index", "--files", library, "--out", out)
    with pytest.raises(zoo.ZooError, match="kind=lsh: unknown"):
        run("index", "--out", out, "--kind", "lsh")


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
    mute = Echo()
    mute.abilities = {}
    with pytest.raises(zoo.ZooError, match="does not generate text"):
        answer(mute, "who?", hits)


def test_what_passages_say_is_not_a_place_of_the_template():
    hits = [Hit(1, 1.0, "{question} {passages}")]
    assert fill("{passages} Q {question}", "{passages}?", hits) == "[1] {question} {passages} Q {passages}?"


def test_search_without_vectors_is_bm25(tmp_path, library):
    index = build_index(tmp_path / "ix", files=[library], size=8)
    assert search(index, "moon")[0] == index.search_text("moon")[0]


def test_pictures_are_found_by_a_picture(tmp_path, capsys):
    """An autoencoder's index of digits: a picture of the split is its own nearest neighbour."""
    data = zoo.create_data("digits")
    data.setup()
    x = data.test[0][:40]
    zoo.fit("ae", x, folder=tmp_path / "ae", max_steps=2, progress=False, accelerator="cpu")
    out = run("index", tmp_path / "ae", "data=digits", "--split", "test", "--out", tmp_path / "ix")
    index = Index(tmp_path / "ix")
    assert f"{len(data.test[0])} items, vectors of" in out
    picture = Image.fromarray((x[7, 0] * 255).round().byte().numpy())
    picture.save(tmp_path / "seven.png")
    first = run("search", tmp_path / "ix", "--image", tmp_path / "seven.png", "-k", 2).splitlines()
    assert first[0].split()[0] == "8"
    assert "split=test row=7 label=" in first[0]
    same = run("search", tmp_path / "ix", "--id", 8, "-k", 3, "--where", "label>=0").splitlines()
    assert same[0].startswith("8  1.0000")
    assert "items, vectors of" in run("index", "--out", tmp_path / "ix", "--kind", "hnsw", "--effort", 400)
    assert run("search", tmp_path / "ix", "--id", 8, "-k", 3) == run(
        "search", tmp_path / "ix", "--id", 8, "-k", 3, "--exact"
    )
    with pytest.raises(zoo.ZooError, match="does not embed texts"):
        run("search", tmp_path / "ix", "a seven")
    with pytest.raises(zoo.ZooError, match="no such item"):
        run("search", tmp_path / "ix", "--id", 10**6)
    zoo.fit("ae", x, folder=tmp_path / "other", max_steps=3, progress=False, accelerator="cpu")
    with pytest.raises(zoo.ZooError, match=r"--add: .*ae made the index .*Give the same run"):
        run("index", tmp_path / "other", "data=digits", "--out", tmp_path / "ix", "--add")
    (tmp_path / "ae" / "best.ckpt").unlink()
    (tmp_path / "other" / "best.ckpt").rename(tmp_path / "ae" / "best.ckpt")
    with pytest.raises(zoo.ZooError, match="have changed"):
        embedder_of(index)


def test_texts_are_found_by_meaning_and_words(tmp_path, library):
    """A text encoder's vectors and BM25 are fused, and a language model answers."""
    given = {"max_steps": 1, "progress": False, "accelerator": "cpu"}
    texts = ["A cat purrs. " * 40, "A dog barks. " * 40]
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    data = zoo.create_data("text", path=str(tmp_path / "texts"), context=64, tokenizer="char", batch_size=4)
    data.setup()
    small = {"d_model": 16, "n_layers": 1, "n_heads": 1}
    for name in ("bert", "gpt"):
        model = zoo.create_model(name, data=data.spec, backbone=small)
        zoo.fit(model, data, folder=tmp_path / name, **given)
    assert "vectors of 16" in run("index", tmp_path / "bert", "--files", library, "--out", tmp_path / "ix", "--size", 8)
    index = Index(tmp_path / "ix")
    found = search(index, "moon", 3)
    vector = embedder_of(index).texts(["moon"])[0]
    assert found == index.fuse("moon", vector, 3)
    assert "dog" in found[0].text
    out = run("ask", tmp_path / "ix", "moon?", "--model", tmp_path / "gpt", "--max-new-tokens", 4, "-k", 1)
    assert "passages do not fit" in out or "[1] " in out
