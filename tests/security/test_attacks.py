"""Every attack of the corpus is refused in one sentence, and nothing of it happens."""

import contextlib
import os
import pickle
import random
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import zoo
from tests.conftest import Result
from tests.security import attacks
from tests.security.fuzz import ODD, twisted
from zoo.cli.main import main
from zoo.config import overrides, sandbox
from zoo.core import registry, spaces
from zoo.core.errors import ZooError, printable
from zoo.core.spaces import Label, Tokens
from zoo.core.spec import DataSpec
from zoo.data.text.tokenizers.base import dumps, loads
from zoo.data.text.tokenizers.bpe import BPE
from zoo.runs.checkpoint import restore_model
from zoo.viz.render import as_code_block

SECRET = "7353"  # a number, so that it would fit into a setting
SMOKE = ("trainer=smoke", "data.batch_size=16")


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place that no attack may create; `.pkl` beside it creates it if it is ever unpickled."""
    monkeypatch.setenv("SECRET", SECRET)
    place = tmp_path / "canary"
    place.with_suffix(".pkl").write_bytes(pickle.dumps(attacks.Call(os.mkdir, str(place))))
    return place


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    """The checkpoint of a small autoencoder."""
    spec = DataSpec(spaces.Image(1, 8, 8, levels=17), Label(10), name="digits")
    small = {"name": "mlp", "width": 16, "depth": 1}
    model = registry.build("model", {"name": "ae", "latent_dim": 2, "encoder": small, "decoder": small}, spec)
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams), "callbacks": {}}
    model.on_save_checkpoint(checkpoint)
    return checkpoint


def assert_refused(result: Result, canary: Path) -> None:
    assert result.code == 1, result
    lines = [line for line in result.err.splitlines() if line.startswith("zoo: ")]
    assert len(lines) == 1, result.err
    assert "Traceback" not in result.err
    assert lines[0] == printable(lines[0])
    assert not [p for p in canary.parent.glob("canary*") if p.suffix != ".pkl"]
    assert SECRET not in result.out + result.err
    written = [p for p in canary.parent.rglob("*") if p.is_file() and p.suffix in (".yaml", ".log", ".ckpt")]
    assert not [p for p in written if SECRET.encode() in p.read_bytes()]


# -- recipes ---------------------------------------------------------------------------------------------------


def recipe(folder: Path, text: str) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "evil.yaml").write_bytes(text.encode(errors="surrogateescape"))
    return folder


@pytest.mark.parametrize("name", attacks.RECIPES)
def test_recipes(name: str, cli, canary: Path) -> None:
    text = attacks.RECIPES[name]
    folder = recipe(canary.parent / "x", text.format(canary=canary) if "{{" in text or "{canary}" in text else text)
    before = [os.environ.get(key) for key in ("PATH", "LD_PRELOAD", "SECRET")]
    assert_refused(cli("--config-dir", str(folder), "model=evil", "data=digits", "trainer=smoke"), canary)
    assert [os.environ.get(key) for key in ("PATH", "LD_PRELOAD", "SECRET")] == before


def test_a_launcher_in_a_folder_of_recipes(cli, canary: Path) -> None:
    folder = recipe(canary.parent / "x", "defaults: [ae, _self_]")
    (folder / "hydra" / "launcher").mkdir(parents=True)
    for name in ("basic", "mine"):  # an existing one, and a new one
        (folder / "hydra" / "launcher" / f"{name}.yaml").write_text(f"_target_: os.mkdir\npath: {canary}\n")
        chosen = [] if name == "basic" else ["hydra/launcher=mine"]
        assert_refused(cli("-m", "--config-dir", str(folder), "model=evil,ae", *chosen), canary)
        (folder / "hydra" / "launcher" / f"{name}.yaml").unlink()


@pytest.mark.parametrize(
    "how", ["--config-d={}", "-cd={}", "-cd {}", "--config-path={}", "-cp {}", "hydra.searchpath=[{}]"]
)
def test_no_other_spelling_shows_hydra_the_folder(how: str, cli, canary: Path) -> None:
    text = attacks.RECIPES["callback that Hydra's own list lets through"].format(canary=canary)
    assert_refused(cli(*how.format(recipe(canary.parent / "x", text)).split(), "model=evil", *SMOKE), canary)


@pytest.mark.parametrize(
    "text",
    [
        "# @package hydra.callbacks\nx: 1",
        "# @package _global_\n# @package hydra\njob: 1",
        "defaults: [/model/ae@hydra.callbacks, _self_]",
        "defaults: [{{override /hydra/launcher: basic}}]",
        "latent_dim: ${hydra.job.env_set.SECRET}",
        "[1, 2]",
    ],
)
def test_recipes_that_reach_for_hydra(text: str, cli, canary: Path) -> None:
    assert_refused(cli("--config-dir", str(recipe(canary.parent / "x", text)), "model=evil", *SMOKE), canary)


def test_a_recipe_cannot_take_the_name_of_one_of_the_zoos(cli, canary: Path) -> None:
    folder = recipe(canary.parent / "x", "name: ae")
    (folder / "model" / "evil.yaml").rename(folder / "model" / "gan.yaml")
    assert_refused(cli("--config-dir", str(folder), "model=gan", *SMOKE), canary)


def test_without_the_guard_a_recipe_does_as_it_likes(cli, canary: Path, monkeypatch) -> None:
    """The control: the canary would appear."""
    monkeypatch.setattr(sandbox, "untrusted_recipes", lambda arguments: contextlib.nullcontext(arguments))
    monkeypatch.setattr(overrides, "check_choices", lambda arguments: None)  # it does not know the recipe either
    folder = recipe(
        canary.parent / "x", attacks.RECIPES["callback that Hydra's own list lets through"].format(canary=canary)
    )
    cli("--config-dir", str(folder), "model=evil", *SMOKE, "trainer.max_steps=1", "trainer.val_check_interval=1")
    assert canary.with_suffix(".npy").exists()


def test_honest_recipes_work_and_what_is_typed_may_do_anything(cli, canary: Path) -> None:
    folder = recipe(canary.parent / "x", "defaults: [ae, _self_]\nlatent_dim: 3\nnum_probes: ${.latent_dim}")
    short = ("trainer.max_steps=1", "trainer.val_check_interval=1")
    result = cli(
        "--config-dir",
        str(folder),
        "model=evil",
        *SMOKE,
        *short,
        "hydra.run.dir=mine",
        "model.optimizer.warmup=${oc.env:SECRET}",
    )
    assert result.code == 0, result.err
    assert f"warmup: {SECRET}" in Path("mine/config.yaml").read_text()


# -- runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", attacks.RUNS)
def test_runs(name: str, cli, canary: Path) -> None:
    run = canary.parent / "run"
    run.mkdir()
    lines = [x.format(canary=canary) if isinstance(x, str) else x for x in attacks.RUNS[name]]
    (run / "overrides.yaml").write_text(yaml.safe_dump(lines))
    assert_refused(cli(f"resume={run}"), canary)
    assert [p.name for p in run.iterdir() if p.name != "train.log"] == ["overrides.yaml"]


def test_links_in_a_run(cli, canary: Path) -> None:
    run, victim = canary.parent / "run", canary.parent / "victim"
    run.mkdir()
    victim.write_text("precious")
    (run / "overrides.yaml").write_text("[model=ae]")
    (run / ".last.ckpt.draft").symlink_to(victim)
    result = cli(f"resume={run}")
    assert_refused(result, canary)
    assert "is a link" in result.err
    assert victim.read_text() == "precious"


def test_a_folder_that_a_mistake_names_keeps_what_is_in_it(cli, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("precious")
    for wrong in ("model.latent_dim=0", "data=images"):
        assert cli("model=ae", wrong, f"hydra.run.dir={home}").code == 1
    assert [p.name for p in home.iterdir()] == ["thesis.txt"]


# -- checkpoints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", attacks.CHECKPOINTS)
def test_checkpoints(name: str, good, canary: Path) -> None:
    path = canary.parent / "evil.ckpt"
    attacks.CHECKPOINTS[name](good, path, canary)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ZooError) as refused:
        zoo.load(path)
    message = str(refused.value)
    assert message == printable(message)
    assert str(path) in message
    assert not canary.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 500_000, "kilobytes"


def test_the_good_checkpoint_loads_and_the_bad_one_would_have_run(good, canary: Path) -> None:
    """The controls."""
    path = canary.parent / "x.ckpt"
    torch.save(good, path)
    assert zoo.load(path).registered_name == "ae"
    torch.save({**good, "hyper_parameters": {**good["hyper_parameters"], "name": "os.mkdir"}}, path)
    assert zoo.load(path).registered_name == "ae", "the note says which model it is"
    attacks.CHECKPOINTS["call in the settings"](good, path, canary)
    torch.load(path, weights_only=False)
    assert canary.exists()


def test_the_commands_that_read_checkpoints(good, cli, canary: Path) -> None:
    run = canary.parent / "run"
    run.mkdir()
    (run / "overrides.yaml").write_text("[model=ae, trainer=smoke]")
    for name in ("call in the settings", "a terabyte of latents"):
        for file in ("best.ckpt", "last.ckpt"):
            attacks.CHECKPOINTS[name](good, run / file, canary)
        assert_refused(cli("sample", str(run), entry=main), canary)
        assert_refused(cli(f"resume={run}"), canary)
    assert not (run / "samples").exists()


@pytest.mark.parametrize("seeds", [range(6), pytest.param(range(6, 80), marks=pytest.mark.slow)], ids=["few", "many"])
def test_what_a_checkpoint_says_of_the_training(seeds: range, cli, canary: Path) -> None:
    """A resumed run goes on or is refused, whatever values Lightning finds there."""
    assert cli("model=ae", *SMOKE, "hydra.run.dir=run").code == 0
    saved = torch.load("run/last.ckpt", weights_only=True)
    training = {k: saved[k] for k in saved if k not in ("state_dict", "hyper_parameters", "zoo")}
    refused = 0
    for seed in seeds:
        rng = random.Random(seed)
        part = rng.choice([k for k in training if isinstance(training[k], (dict, list))])
        torch.save({**saved, **twisted(training, rng), part: rng.choice(ODD)}, "run/last.ckpt")
        result = cli("resume=run", "trainer.max_steps=6")
        if result.code:
            assert_refused(result, canary)
            refused += 1
    assert refused > len(seeds) // 4


@pytest.mark.parametrize("name", attacks.TOKENIZERS)
def test_tokenizers(name: str) -> None:
    with pytest.raises(ZooError) as refused:
        loads(attacks.TOKENIZERS[name])
    assert str(refused.value) == printable(str(refused.value))
    spec = DataSpec(Tokens(8, 3, attacks.TOKENIZERS[name]), name="text")
    checkpoint = {
        "zoo": {"model": "language_model", "spec": spec.to_dict()},
        "hyper_parameters": {"backbone": {"name": "transformer", "d_model": 8, "n_layers": 1, "n_heads": 1}},
        "state_dict": {},
    }
    with pytest.raises(ZooError):
        restore_model(checkpoint)


def test_what_else_the_librarys_json_holds_is_not_used() -> None:
    """A pattern that takes a year to match, in the place of the splitting."""
    honest = BPE(min_frequency=1, vocab_size=280).fit(["low lower lowest newer wider new"])
    evil = dumps(honest).replace("use_regex", "add_more").replace('\\"ByteLevel\\"', '\\"Metaspace\\"')
    again = loads(evil)
    assert again.encode("new lower") == honest.encode("new lower")


# -- terminal output ---------------------------------------------------------------------------------------------

NASTY = "</code></pre><script>alert(1)</script>\n\n<img src=x onerror=alert(1)>\x0b[x](javascript:alert(1))\n# title"


def test_text_on_the_dashboard_stays_text() -> None:
    from tensorboard import plugin_util

    shown = plugin_util.markdown_to_safe_html(as_code_block(NASTY))
    assert "<script" not in shown
    assert "<img" not in shown
    assert "<a " not in shown
    assert "<h1" not in shown
    assert "&lt;script&gt;" in shown


def test_nothing_reaches_the_terminal_that_it_would_obey(tmp_path: Path) -> None:
    assert printable("plain [b]é 漢[/b]") == "plain [b]é 漢[/b]"
    assert printable("\x1b[2J\r\n\u202e\udcff\0") == "\\x1b[2J\\r\\n\\u202e\\udcff\\x00"
    assert printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"
    assert printable("\u2066\u200f\u2028\x9b\ufeff") == r"\u2066\u200f\u2028\x9b\ufeff"
    for text in (
        "日本　語",
        "prix :\xa05\xa0€",
        "می\u200cخواهم",
        "👩\u200d🔬 ❤️ 🏴\U000e0067\U000e007f",
        "\u202f\u2009",
    ):
        assert printable(text) == text
    for name in ("\x1b[31mred\x1b[0m.png", "two\nlines.png", "\udcff\udcfe.png"):
        (tmp_path / name).write_text("not a picture")
    for i in range(4):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{i}.png")
    module = registry.build("data", {"name": "images", "path": str(tmp_path), "batch_size": 1})
    with pytest.raises(ZooError, match="3 of 7 images") as refused:
        module.setup()
    assert str(refused.value) == printable(str(refused.value))
