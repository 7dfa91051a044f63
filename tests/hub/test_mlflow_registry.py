"""MLflow's registry: its own client, and a database in a file.

Needs `pip install mlflow`, or `mlflow-skinny sqlalchemy alembic`.
"""

import sys
from pathlib import Path

import pytest

import zoo
from tests.hub.test_store import version
from zoo.hub import manifest
from zoo.hub.address import open_repository
from zoo.hub.publish import listing, move_tag, pull, push

ADDRESS = "mlflow://ae-moons"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(zoo.CheckpointError, match=r"Install generative-zoo\[mlflow\]"):
        open_repository(ADDRESS)


def test_a_model_goes_to_the_registry_and_back(run: Path, server: Path) -> None:
    first = push(run, ADDRESS, tags=["production"])
    second = push(run, ADDRESS, half=True)
    assert push(run, ADDRESS).version == first.version, "a version that exists is not written again"
    repository = open_repository(ADDRESS)
    assert repository.versions() == {first.version: first, second.version: second}
    assert repository.tags() == {"latest": first.version, "production": first.version}
    move_tag(f"{ADDRESS}@{second.version[:9]}", "production")
    folder, pulled = pull(f"{ADDRESS}@production", server / "out")
    assert pulled == second
    assert zoo.load(folder).sample(3, seed=0).equal(zoo.load(f"{ADDRESS}@production").sample(3, seed=0))
    assert any("latest" in line and first.version[:12] in line for line in listing(ADDRESS, 1))


def test_a_model_that_others_registered_is_left_alone(server: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient()
    client.create_registered_model("theirs")
    client.create_model_version("theirs", source=str(server / "elsewhere"))
    with pytest.raises(zoo.CheckpointError, match="no published model is there"):
        pull("mlflow://theirs", server / "out")
    found = version(server / "v", b"weights")
    open_repository("mlflow://theirs").push(server / "v", found)
    assert pull("mlflow://theirs", server / "out")[1] == found
    assert len(client.search_model_versions("name='theirs'")) == 2


def test_a_changed_file_is_refused(server: Path) -> None:
    open_repository("mlflow://m").push(server / "v", version(server / "v", b"weights"))
    (stored,) = server.rglob(f"artifacts/model/{manifest.WEIGHTS}")
    stored.write_bytes(b"weighty")
    with pytest.raises(zoo.CheckpointError, match=manifest.WEIGHTS):
        pull("mlflow://m", server / "out")
    assert not (server / "out").exists()


def test_an_interrupted_push_registers_nothing(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    old, new = (version(server / name, name.encode()) for name in ("old", "new"))
    open_repository("mlflow://m").push(server / "old", old)
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_model_version", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(zoo.CheckpointError, match="full"):
            open_repository("mlflow://m").push(server / "new", new)
    assert pull("mlflow://m", server / "out")[1] == old
    open_repository("mlflow://m").push(server / "new", new)
    assert pull("mlflow://m", server / "again")[1] == new


def test_a_server_that_is_not_there_and_a_wrong_name_end_in_one_sentence(
    server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(zoo.CheckpointError, match=r"mlflow://a/b: not a registered model. Write mlflow://NAME"):
        open_repository("mlflow://a/b")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(zoo.CheckpointError, match="Check MLFLOW_TRACKING_URI"):
        open_repository("mlflow://m").versions()
