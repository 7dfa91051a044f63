"""Shortcuts in Hydra's composition change no configuration."""

import os
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal import defaults_list
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from zoo.config import shortcuts
from zoo.config.compose import CONF, register_with_hydra


def composed(folder: Path, *overrides: str) -> str:
    register_with_hydra()
    with initialize_config_dir(str(folder), version_base="1.3"):
        cfg = hydra_compose("config", overrides=list(overrides), return_hydra_config=True)
    return OmegaConf.to_yaml(cfg)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra as it is."""
    register_with_hydra()
    for source in shortcuts.sources():
        monkeypatch.setattr(source, "load_config", source.load_config.__wrapped__)
    monkeypatch.setattr(defaults_list, "_create_interpolation_map", defaults_list._create_interpolation_map.__wrapped__)


@pytest.mark.parametrize("words", [["model=gan"], ["model=gpt", "data=text", "model/optimizer=sgd"], ["trainer=ddp"]])
def test_the_configuration_is_hydras_own(words: list[str], request: pytest.FixtureRequest) -> None:
    twice = [composed(CONF, *words) for _ in range(2)]
    assert twice[0] == twice[1], "what was read is not changed by the first composition"
    request.getfixturevalue("without")
    assert composed(CONF, *words) == twice[0]


def written(folder: Path) -> Path:
    """Two groups; the second follows the choice of the first."""
    for name, text in {
        "config.yaml": "defaults:\n  - size: small\n  - shape: ${size}_one\n  - _self_\n",
        "size/small.yaml": "count: 1\n", "size/large.yaml": "count: 2\n",
        "shape/small_one.yaml": "sides: 10\n", "shape/large_one.yaml": "sides: 20\n",
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_interpolations_in_a_defaults_list_are_resolved(tmp_path: Path) -> None:
    folder = written(tmp_path)
    assert "sides: 10" in composed(folder)
    assert "sides: 20" in composed(folder, "size=large")


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path)
    assert "count: 1\n" in composed(folder)
    (folder / "size/small.yaml").write_text("count: 3\n")
    os.utime(folder / "size/small.yaml", ns=(0, 1))
    assert "count: 3\n" in composed(folder)
    # The negative control: the same size and time are the same file, so that it is not read.
    (folder / "size/small.yaml").write_text("count: 4\n")
    os.utime(folder / "size/small.yaml", ns=(0, 1))
    assert "count: 3\n" in composed(folder)
    monkeypatch.setattr(shortcuts, "_FILES", {})
    assert "count: 4\n" in composed(folder)


def test_a_schema_is_built_at_its_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    place: dict = {}
    monkeypatch.setattr(shortcuts.ConfigStore.instance(), "repo", place)
    shortcuts.store_lazily("mine", "a/b", lambda: built.append(1) or {"n": 1})
    assert built == []
    first, second = (shortcuts.ConfigStore.instance().load("a/b/mine.yaml") for _ in range(2))
    first.node.n = 2
    assert (second.node.n, second.package, second.provider, built) == (1, None, "zoo", [1])


@pytest.mark.parametrize(
    ("folder", "words", "mode", "composed"),
    [
        ("", ["model=vae", "hydra.run.dir=here"], None, 0),
        ("", ["model=vae", "hydra.mode=MULTIRUN"], RunMode.MULTIRUN, 1),
        ("mine", ["+often=sweep"], RunMode.MULTIRUN, 1),
        ("mine", ["model=vae"], None, 1),
    ],
)
def test_the_mode_is_read_where_it_may_be_set(
    folder: str, words: list[str], mode: RunMode | None, composed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same mode as Hydra's own method, which composes everything each time."""
    (tmp_path / "often").mkdir()
    (tmp_path / "often/sweep.yaml").write_text("# @package _global_\nhydra:\n  mode: MULTIRUN\n")
    register_with_hydra()
    places = create_config_search_path(str(CONF))
    if folder:
        places.prepend("command-line", f"file://{tmp_path}", SearchPathQuery("schema"))  # as `--config-dir` does
    hydra = Hydra.create_main_hydra2("train", places)
    try:
        assert Hydra.get_mode.__wrapped__(hydra, "config", words) == mode
        calls = []
        compose = hydra.compose_config
        monkeypatch.setattr(hydra, "compose_config", lambda **given: calls.append(1) or compose(**given))
        assert hydra.get_mode("config", words) == mode
        assert len(calls) == composed
    finally:
        GlobalHydra.instance().clear()


def test_no_file_of_the_zoo_sets_the_mode() -> None:
    files = [OmegaConf.load(path) for path in CONF.rglob("*.yaml")]
    assert len(files) > 100
    assert [file for file in files if OmegaConf.select(file, "hydra.mode") is not None] == []
