"""Pretrained models: weights in the package, names in place of runs, verification."""

import csv
import json
import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.api import list_models, pretrained_table
from zoo.cli.main import main
from zoo.cli.remake import remake_pretrained
from zoo.data.loader import make_generator
from zoo.evaluation.suites.base import suites
from zoo.hub import manifest, pretrained
from zoo.hub.pretrained import WEIGHTS, catalogue, resolve
from zoo.hub.publish import pull, push
from zoo.models.abilities import SupportsSampling
from zoo.models.ability import supports

NAMES = list(catalogue())
MAX_TOTAL = 16e6  # bytes in the wheel
CHEAP = "gmm-digits"  # its metrics of likelihood are exact, and take a second


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_is_complete(name: str) -> None:
    found = catalogue()[name]
    manifest.verify(found, WEIGHTS / name)
    assert {file.name for file in (WEIGHTS / name).iterdir()} == {*found.files, manifest.FILE}
    assert found.name == name
    assert found.command.startswith("python train.py ")
    assert found.licence
    assert re.fullmatch(r"[0-9a-f]{7,40}", found.commit), "made from a clean checkout"
    assert found.metrics
    assert found.protocol["split"] == "test"
    assert not any(word.startswith("/") for word in json.dumps(found.command).split("="))


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_samples_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection"))
    monkeypatch.delenv("ZOO_DATA", raising=False)
    model: Any = zoo.load(name)
    options = {"max_new_tokens": 4} if model.spec.text else {}
    if supports(model, SupportsSampling):
        x = model.sample(2, generator=make_generator(0), **options)
        assert torch.isfinite(x.float()).all()
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == catalogue()[name].parameters
    assert (WEIGHTS / name / "config.yaml").read_text().startswith("model:\n  name: " + model.registered_name)


def test_all_weights_are_small_and_without_code() -> None:
    files = [file for file in WEIGHTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < MAX_TOTAL
    assert {file.suffix for file in files} <= {".json", ".md", ".png", ".safetensors", ".txt", ".yaml"}


def test_the_families_that_train_in_minutes_have_one() -> None:
    families = {family_of(found.model) for found in catalogue().values()}
    assert {
        "adversarial", "autoregressive", "variational", "autoencoder", "diffusion", "flow", "baselines", "energy",
        "embedding", "captioning", "finetuning", "masked", "seq2seq", "translation",
    } <= families  # fmt: skip


def family_of(registered: str) -> str:
    infos = map(zoo.model_info, list_models())
    return next(info.family for info in infos if info.registered == registered)


def test_the_recorded_metric_is_that_of_the_weights() -> None:
    """Measured again; weights with another seed are the negative control."""
    recorded = catalogue()[CHEAP].metrics
    again = zoo.evaluate(CHEAP, only=["likelihood"]).scores
    assert again
    for name, score in again.items():
        assert score.value == pytest.approx(recorded[name]["value"], rel=1e-5)
    assert recorded.keys() - again.keys(), "those of the other suites"
    assert set(suites()) >= {"likelihood", "samples"}


def test_changed_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(WEIGHTS / CHEAP, tmp_path / CHEAP)
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    place = resolve(CHEAP)
    zoo.load(place)
    shutil.rmtree(place)
    file = tmp_path / CHEAP / manifest.WEIGHTS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(zoo.CheckpointError, match=r"model\.safetensors.*changed"):
        zoo.load(CHEAP)
    assert not place.exists()


def test_a_damaged_copy_in_the_cache_is_replaced() -> None:
    place = resolve(CHEAP)
    expected = (place / manifest.WEIGHTS).read_bytes()
    (place / manifest.WEIGHTS).write_bytes(b"")
    assert (resolve(CHEAP) / manifest.WEIGHTS).read_bytes() == expected
    (place / "metrics.json").write_text("{}")
    assert (resolve(CHEAP) / "metrics.json").is_file(), "other files stay"


def test_a_run_on_disk_comes_before_a_name(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert zoo.load(CHEAP).registered_name == "gmm"
    shutil.copytree(run, tmp_path / CHEAP)
    assert zoo.load(CHEAP).registered_name == "ae"
    assert resolve(CHEAP) == Path(CHEAP)


def test_files_of_an_entry_may_lie_elsewhere(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry without weights names the address of a store."""
    found = push(run, "memory://far/ae-moons")
    place = tmp_path / "weights/ae-moons"
    place.mkdir(parents=True)
    (place / manifest.FILE).write_bytes(replace(found, source="memory://far/ae-moons").to_bytes())
    entries = catalogue(tmp_path / "weights")
    monkeypatch.setattr(pretrained, "catalogue", lambda: entries)
    assert torch.equal(zoo.load("ae-moons").sample(3, seed=0), zoo.load(run).sample(3, seed=0))
    assert entries["ae-moons"].version == found.version
    changed = {**found.files, manifest.WEIGHTS: {"sha256": "0" * 64, "size": 1}}
    entries["ae-moons"] = replace(found, source="memory://far/ae-moons", files=changed)
    with pytest.raises(zoo.CheckpointError):
        zoo.load("ae-moons")


def test_models_by_name_from_python() -> None:
    assert zoo.create_model("gmm", pretrained="digits").registered_name == "gmm"
    assert zoo.create_model("gmm", pretrained=CHEAP).hparams["n_components"] == 10
    assert not zoo.create_model("gmm", pretrained="digits").training
    for call, message in {
        lambda: zoo.create_model("gmm", pretrained="digit"): "did you mean 'gmm-digits'",
        lambda: zoo.create_model("gmn", pretrained="digits"): "did you mean 'gmm'",
        lambda: zoo.create_model("ppca", pretrained=CHEAP): "is a gmm, not a ppca",
        lambda: zoo.create_model("gmm", pretrained="digits", n_components=3): "Leave out n_components",
        lambda: zoo.create_model("gmm", "digits", pretrained="digits"): "Leave out data",
        lambda: zoo.load("gmm-digit"): "Did you mean 'gmm-digits'",
        lambda: zoo.load("runs/nothing"): "no run or checkpoint",
    }.items():
        with pytest.raises(zoo.ZooError, match=message):
            call()
    assert CHEAP in zoo.list_pretrained("gmm*")
    assert not zoo.list_pretrained("nothing*")


def test_the_verbs_take_names(cli: Any, tmp_path: Path) -> None:
    listed = cli("list", "--pretrained", entry=main)
    assert all(name in listed.out for name in NAMES)
    assert cli("list", "x*", "--pretrained", entry=main).code == 1
    assert "## Metrics" in cli("pretrained", CHEAP, entry=main).out
    drawn = cli("sample", CHEAP, "-n", "4", entry=main)
    assert drawn.code == 0, drawn.err
    assert drawn.out.strip() == f"{CHEAP}-seed-0.png"
    assert Path(f"{CHEAP}-seed-0.png").is_file()
    assert cli("export", CHEAP, entry=main).code == 0
    assert Path(f"{CHEAP}-model.safetensors").is_file()
    assert "card" not in cli("export", "gmm-digit", entry=main).out
    pushed = cli("push", CHEAP, "s/mine", entry=main)
    assert pushed.code == 0, pushed.err
    assert pull("s/mine", tmp_path / "p")[1] == catalogue()[CHEAP]
    assert cli("pretrained", CHEAP, "--out", "x", entry=main).err.strip().endswith("Add --remake, or leave it out.")


def test_a_server_takes_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.serve.pool import find_sources

    monkeypatch.chdir(tmp_path)
    found = find_sources([CHEAP, f"mine={CHEAP}"])
    assert [source.name for source in found] == [CHEAP, "mine"]
    assert found[0].load().registered_name == "gmm"


def test_training_begins_with_a_name(cli: Any) -> None:
    """The loss of the first batches is that of the trained model; a fresh one is the negative control."""
    losses = []
    for words in (["init_from=ae-digits"], []):
        done = cli("model=ae", "data=digits", "trainer=smoke", "model.optimizer.lr=1e-9", "hydra.run.dir=r", *words)
        assert done.code == 0, done.err
        assert ("ae-digits: ae of digits" in done.out) == bool(words)
        rows = list(csv.DictReader(Path("r/metrics.csv").read_text().splitlines()))
        losses.append(next(float(row["val/loss"]) for row in rows if row["val/loss"]))
        shutil.rmtree("r")
    assert losses[0] < 0.3 * losses[1]


def test_untrusted_recipes_and_runs_open_no_address(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "cached_version", lambda address: pytest.fail(address))
    Path("x/model").mkdir(parents=True)
    for recipe in ("# @package _global_\ndefaults: [/model/ae@model, _self_]\ninit_from: memory://far/m",):
        Path("x/model/evil.yaml").write_text(recipe)
        done = cli("--config-dir", "x", "model=evil", "trainer=smoke")
        assert done.code == 1
        assert "is an address" in done.err
    Path("run").mkdir()
    Path("run/overrides.yaml").write_text("- model=ae\n- trainer=smoke\n- init_from=memory://far/m\n")
    Path("run/config.yaml").write_text("model: {name: ae}\ndata: {name: digits}\ntrainer: {}\n")
    done = cli("resume=run")
    assert done.code == 1
    assert "is an address" in done.err


def test_a_model_is_remade_by_its_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["model=ppca", "data=moons", "seed=1"]
    found = remake_pretrained("ppca-moons", words, tmp_path, only=["likelihood"])
    assert found.command == "python train.py model=ppca data=moons seed=1"
    assert found.seed == 1
    manifest.verify(found, tmp_path / "ppca-moons")
    assert manifest.read(tmp_path / "ppca-moons") == found
    assert found.metrics
    assert "again, half precision" in capfd.readouterr().out
    with pytest.raises(zoo.CheckpointError, match="exists"):
        remake_pretrained("ppca-moons", words, tmp_path)
    with pytest.raises(zoo.CheckpointError, match="unknown pretrained model"):
        remake_pretrained("ppca-moon")


def test_the_page_has_the_table() -> None:
    page = (Path(__file__).parents[2] / ".github/docs/pretrained.md").read_text()
    written = re.search(r"<!-- pretrained: .* -->\n(.*?)\n<!-- /pretrained -->", page, re.DOTALL)
    assert written
    assert written[1] == pretrained_table(), "paste the output of `zoo list --pretrained --markdown`"
