"""Processes without HOME, whose user is not in the password database, as in some containers."""

import os
import pwd
from pathlib import Path

import pytest

import zoo
from zoo.core.cache import cache_root, data_root, user_path


@pytest.fixture(autouse=True)
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object) -> None:
        raise KeyError

    for name in ("HOME", "ZOO_CACHE", "ZOO_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("getpwuid", "getpwnam"):
        monkeypatch.setattr(pwd, name, nobody)
    assert os.path.expanduser("~") == "~"
    with pytest.raises(RuntimeError):
        Path.home()  # the control: the usual way fails


def test_folders_are_temporary() -> None:
    assert cache_root().is_dir()
    assert data_root(None) == cache_root()
    with pytest.raises(zoo.ConfigError, match="~/a: this user does not have a home folder"):
        user_path("~/a")


def test_it_trains_and_refuses_paths_in_one_sentence(cli, tmp_path: Path) -> None:
    told = cli("model=vae", "trainer=smoke", "data.batch_size=16", "hydra.run.dir=run")
    assert told.code == 0, told.err
    assert zoo.load(tmp_path / "run").sample(2).shape == (2, 1, 8, 8)
    told = cli("model=vae", "data=images", "data.path=~/photos", "data.label_file=~/a.csv", "trainer=smoke")
    assert told.code == 1
    assert "~/photos: this user does not have a home folder. Set HOME, or give a full path." in told.err
    assert not (tmp_path / "~").exists()
    assert "Traceback" not in told.err
