"""A tiny run, trained and evaluated once for each process."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

import zoo
from zoo.evaluation.evaluate import record


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two batches, with metrics and samples."""
    folder = tmp_path_factory.mktemp("hub") / "run"
    zoo.fit("ae", "moons", max_steps=2, folder=folder, progress=False)
    zoo.evaluate(folder, only=["reconstruction"], keep=record)
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty store."""
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    fsspec.filesystem("memory").rm("/", recursive=True)
    yield "memory://store"
    fsspec.filesystem("memory").rm("/", recursive=True)
