"""`zoo embed` and the files of word vectors; gensim reads them, and is the oracle of neighbours and analogies."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo.cli.main import main
from zoo.core.errors import ZooError
from zoo.evaluation.suites.words import judge
from zoo.interop.word_vectors import WordVectors
from zoo.io.word2vec_file import read_vectors, write_vectors
from zoo.metrics.word_vectors import analogies, analogy_accuracy, nearest, word_similarity

WORDS = ["king", "queen", "man", "woman", "bank", "river", "two words", "bank"]


def table(n: int = len(WORDS)) -> torch.Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny training from the command line."""
    folder = tmp_path_factory.mktemp("words")
    text = " ".join(f"the {a} sat near the {b}" for a in ("cat", "dog", "cow") for b in ("house", "tree") for _ in "ab")
    (folder / "a.txt").write_text((text + "\n") * 30)
    settings = ["data=text", "data/tokenizer=word_level", f"data.path={folder / 'a.txt'}", "data.context=16"]
    quick = ["trainer.max_steps=4", "model.dim=6", "trainer.accelerator=cpu", "data.batch_size=4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["zoo", "train", "model=word2vec", *settings, *quick, f"hydra.run.dir={folder}/run"])
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return folder / "run"


def test_vectors_neighbours_and_analogies_are_printed(run: Path, cli, capfd: pytest.CaptureFixture[str]) -> None:
    model = zoo.load(run)
    vector = model.embed("cat")[0]
    assert torch.equal(vector, model.word_vectors()[model.words.index("cat")])
    told = cli("embed", str(run), "cat", entry=main)
    assert told.code == 0
    assert [float(n) for n in told.out.split()[1:]] == pytest.approx(vector.tolist(), rel=1e-3)
    told = cli("embed", str(run), "cat", "--nearest", "3", "--analogy", "cat dog cow", entry=main)
    first, second = told.out.splitlines()
    assert first.startswith("cat: ")
    assert first.count(",") == 2
    assert "cat" not in first.removeprefix("cat:")
    assert second.startswith("cat : dog = cow : ")
    for wrong, message in (
        (["--analogy", "cat dog"], "2 words. Give three"),
        (["--analogy", "cat dog unheard"], "unknown word 'unheard'"),
        (["cat", "--out", "a.txt", "--analogy", "cat dog unheard"], "unknown word 'unheard'"),
        (["unheard"], "no word of it was in the training text"),
        ([], "nothing to embed"),
        (["cat", "--out", "a.pdf"], "not a format of vectors"),
    ):
        told = cli("embed", str(run), *wrong, entry=main)
        assert told.code == 1
        assert message in told.err
        assert not told.out
        assert not Path("a.txt").exists(), "words are checked before work"
    told = cli("sample", str(run), entry=main)
    assert "does not draw samples. Use `zoo embed" in told.err


def test_words_are_in_tensorboard_and_judged(run: Path, cli, tmp_path: Path) -> None:
    listed = next(run.glob("**/metadata.tsv")).read_text().split()
    assert listed == zoo.load(run).words
    pairs, questions = tmp_path / "pairs.tsv", tmp_path / "questions.txt"
    pairs.write_text("# comment\nCat\tdog\t9.5\ncat\thouse\t1\ndog\ttree\t2\ncow\tunheard\t3\n")
    questions.write_text(": animals\ncat dog cow tree\ncat dog cow house\nunheard dog cow house\n")
    told = cli("evaluate", str(run), "--judgements", str(pairs), "--judgements", str(questions), entry=main)
    assert told.code == 0, told.err
    metrics = json.loads((run / "metrics.json").read_text())["best.ckpt"]["metrics"]
    assert metrics["spearman_pairs@3"]["note"].startswith("3 of 4")
    assert metrics["analogy_questions@2"]["value"] in (0, 0.5)
    (tmp_path / "none.txt").write_text("nothing here\n")
    with pytest.raises(ZooError, match="no pairs with a similarity"):
        judge(tmp_path / "none.txt", table(), {})


@pytest.mark.parametrize("suffix", [".txt", ".bin"])
def test_gensim_reads_the_files(suffix: str, tmp_path: Path) -> None:
    keyed = pytest.importorskip("gensim.models").KeyedVectors
    assert write_vectors(tmp_path / f"a{suffix}", WORDS, table()) == 6
    read = keyed.load_word2vec_format(str(tmp_path / f"a{suffix}"), binary=suffix == ".bin")
    assert read.index_to_key == WORDS[:6]
    assert np.array_equal(read.vectors, table()[:6].numpy()), "all bits"
    cosines, rows = nearest(table()[:6], table()[:1], 3, [[0]])
    assert [w for w, _ in read.most_similar("king", topn=3)] == [WORDS[i] for i in rows[0]]
    assert [c for _, c in read.most_similar("king", topn=3)] == pytest.approx(cosines[0].tolist(), rel=1e-5)
    values, found = analogies(table()[:6], torch.tensor([[2, 0, 3]]), 3)
    theirs = read.most_similar(positive=["king", "woman"], negative=["man"], topn=3)
    assert [w for w, _ in theirs] == [WORDS[i] for i in found[0]]
    assert not {0, 2, 3} & set(found[0].tolist())
    # gensim scales the query as well, by the mean of three vectors: a common factor
    assert np.corrcoef([c for _, c in theirs], values[0])[0, 1] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("suffix", [".txt", ".bin", ".vec"])
def test_what_gensim_writes_is_read(suffix: str, tmp_path: Path) -> None:
    keyed = pytest.importorskip("gensim.models").KeyedVectors(5)
    words = ["king", "été", "a_b", "naïve", "\u00a0odd", "x"]
    keyed.add_vectors(words, table()[:6].numpy())
    file = tmp_path / f"a{suffix}"
    keyed.save_word2vec_format(str(file), binary=suffix == ".bin")
    read, vectors = read_vectors(file)
    assert read == words
    assert torch.equal(vectors, table()[:6]) if suffix == ".bin" else torch.allclose(vectors, table()[:6])


@pytest.mark.parametrize("suffix", [".txt", ".bin"])
def test_what_we_write_is_read(suffix: str, tmp_path: Path) -> None:
    write_vectors(tmp_path / f"a{suffix}", WORDS, table())
    words, vectors = read_vectors(tmp_path / f"a{suffix}")
    assert words == WORDS[:6]
    assert torch.equal(vectors, table()[:6]), "all bits"


def test_files_of_glove_and_repeated_words(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the 1 -2.5\nof 3 4e-1\nthe 9 9\n\n")
    words, vectors = read_vectors(tmp_path / "a.txt")
    assert words == ["the", "of"]
    assert vectors.tolist() == [[1, -2.5], [3, pytest.approx(0.4)]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "no vectors"),
        ("a.txt", b"2 3\nthe 1 2 3\n", r"1 lines of vectors, and the first line has 2"),
        ("a.txt", b"2 3\nthe 1 2 3\nof 1 2\n", r"line 3 of .*a\.txt: 2 numbers, and not 3"),
        ("a.txt", b"the 1 2\nof 1 x\n", r"line 2 of .*a\.txt: could not convert"),
        ("a.txt", b"the\n", r"line 1 of .*a\.txt: 0 numbers"),
        ("a.txt", b"the 1 nan\n", r"the vector of 'the' is not finite"),
        ("a.bin", b"the 1 2\n", "not the binary format of word2vec"),
        ("a.bin", b"9999999 300\nthe 1 2\n", "too short for 9,999,999 vectors of 300"),
        ("a.bin", b"2 1\nthe \0\0\0\0of \0\0", "ends after 1 of 2 vectors"),
    ],
)
def test_faults_of_files_of_vectors(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ZooError, match=message):
        read_vectors(tmp_path / name)


def test_a_file_is_embedded_like_a_model(tmp_path: Path, cli) -> None:
    file = tmp_path / "a.bin"
    write_vectors(file, WORDS, table())
    told = cli("embed", str(file), "king", "--nearest", "2", entry=main)
    assert told.code == 0, told.err
    cosines, rows = nearest(table()[:6], table()[:1], 2, [[0]])
    listed = ", ".join(f"{WORDS[i]} {cosine:.3f}" for i, cosine in zip(rows[0], cosines[0], strict=True))
    assert told.out.strip() == f"king: {listed}"
    model = WordVectors(file)
    assert torch.allclose(model.embed(["King queen unheard"])[0], (table()[0] + table()[WORDS.index("queen")]) / 2)
    told = cli("embed", str(file), "--analogy", "man king woman", entry=main)
    assert told.out.startswith("man : king = woman :")
    told = cli("embed", str(file), "unheard", entry=main)
    assert told.code == 1
    assert "text='unheard': no word of it is in the file" in told.err
    assert cli("embed", str(file), "--out", str(tmp_path / "b.txt"), entry=main).code == 0
    assert torch.equal(read_vectors(tmp_path / "b.txt")[1], table()[:6]), "converted, all bits"


def test_arrays_are_written(tmp_path: Path) -> None:
    assert write_vectors(tmp_path / "a.npy", WORDS, table()) == 8
    assert np.array_equal(np.load(tmp_path / "a.npy"), table().numpy())


def test_judgements_are_scored() -> None:
    """Known orders, analogies that are exact, and their opposite."""
    rows = {word: i for i, word in enumerate("abcdef")}
    angles = torch.tensor([0.0, 0.1, 0.3, 0.7, 1.5, 2.5])
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    pairs = [("a", word, float(-rows[word])) for word in "bcdef"] + [("a", "unheard", 0.0)]
    same = word_similarity(circle, rows, pairs)
    assert (same.value, same.known, same.total) == (pytest.approx(1), 5, 6)
    assert word_similarity(circle, rows, [(a, b, -s) for a, b, s in pairs]).value == pytest.approx(-1)
    assert math.isnan(word_similarity(circle, rows, pairs[:1]).value)
    corners = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1], [-5, -5, 1]]) - 0.4
    found = analogy_accuracy(corners, rows, [("a", "b", "c", "d"), ("a", "b", "c", "e"), ("a", "b", "c", "x")])
    assert (found.value, found.known, found.total) == (0.5, 2, 3)
    assert found.error == pytest.approx(0.5 / math.sqrt(2))
