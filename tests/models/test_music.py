"""Models of tokens learn music, and continue, fill and harmonise it."""

import pytest
import torch

import zoo
from zoo.cli.main import main
from zoo.data.batch import Batch
from zoo.data.music.synthetic_chorales import log_prob

PROMPT = "sC5 aG4 tE4 bC3\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short training of a small masked diffusion."""
    folder = tmp_path_factory.mktemp("runs") / "masked"
    settings = {"backbone": {"d_model": 16, "n_heads": 1, "n_layers": 1}, "sampler": {"steps": 2}}
    data = zoo.create_data("synthetic_chorales", steps=8, batch_size=8, beats=4)
    model = zoo.create_model("masked_diffusion", data=data.spec, **settings)
    zoo.fit(model, data, max_steps=2, folder=folder, progress=False, accelerator="cpu")
    return folder


def test_a_training_leaves_pictures_and_sound(run):
    names = {file.name for file in (run / "samples").iterdir()}
    assert {"final.png", "final-sound.wav"} <= names
    assert any(name.endswith(".wav") and name[:6].isdigit() for name in names)


def test_a_soprano_is_harmonised_and_kept(run, cli, tmp_path):
    soprano = ["sC5", "sD5", "sE5", "sC5"]
    prompt = "".join(f"{note} [MASK][MASK][MASK]" for note in soprano)
    for suffix in ("txt", "mid", "wav", "png"):
        result = cli("sample", str(run), "--prompt", prompt, "--out", f"a.{suffix}", entry=main)
        assert result.code == 0, result.err
        assert (tmp_path / f"a.{suffix}").stat().st_size > 0
    filled = (tmp_path / "a.txt").read_text().split()
    assert filled[::4] == soprano
    assert len(filled) == 16


def test_a_beginning_is_continued(run, cli, tmp_path):
    model = zoo.load(run)
    done = model.generate([PROMPT], max_new_tokens=8, seed=0)[0]
    assert len(done.tokens) <= 8
    for number, prompt in enumerate([PROMPT, PROMPT.strip(), "sC5 aG4"]):
        files = [f"{number}.mid", f"{number}.txt"]
        for file in files:
            assert cli("sample", str(run), "--prompt", prompt, "--out", file, "max_new_tokens=6", entry=main).code == 0
        assert (tmp_path / files[1]).read_text().split()[: len(prompt.split())] == prompt.split()
    bad = cli("sample", str(run), "--prompt", "la la", entry=main)
    assert bad.code == 1
    assert "not a note" in bad.err


@pytest.fixture(scope="module")
def music():
    """Short synthetic pieces."""
    data = zoo.create_data("synthetic_chorales", beats=8, steps=32, batch_size=8)
    data.setup()
    return data


def nats_per_note(data, order):
    """Test nats per note of n-grams."""
    model = zoo.create_model("ngram", data=data.spec, order=order)
    model.fit(torch.cat([model.statistics(Batch.of(batch)) for batch in data.fitting_dataloader()]))
    found = [model.token_nll(Batch.of(batch)) for batch in data.test_dataloader()]
    return float(sum(nats.sum() for nats, _ in found) / sum((y >= 0).sum() for _, y in found))


def test_nats_per_note_approach_the_known_distribution_from_above(music):
    exact = -sum(log_prob(p) for p in music.pieces[2]) / sum(p.numel() for p in music.pieces[2])
    found = {order: nats_per_note(music, order) for order in (1, 5, 18)}
    assert exact < found[18] < found[5] < found[1]
    assert found[18] < 0.5


def test_notes_are_not_scored_in_bits_per_byte(music):
    model = zoo.create_model("ngram", data=music.spec, order=2)
    assert not model.sizes(torch.arange(4)).any()
