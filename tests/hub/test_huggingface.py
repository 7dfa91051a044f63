"""The real client of Hugging Face's hub, against a stand-in that has its interface."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

import zoo
from tests.hub.server import Hub, running
from tests.hub.test_store import version
from zoo.hub import manifest
from zoo.hub.address import open_repository
from zoo.hub.huggingface import VERSION
from zoo.hub.publish import listing, move_tag, pull, push


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running(Hub()) as found:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", found.address)
        template = f"{found.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield found


def test_a_model_goes_to_the_hub_and_back(run: Path, hub: Hub, tmp_path: Path) -> None:
    first = push(run, "hf://me/ae-moons", tags=["production"])
    second = push(run, "hf://me/ae-moons", half=True)
    assert push(run, "hf://me/ae-moons").version == first.version, "a version that exists is not written again"
    repository = open_repository("hf://me/ae-moons")
    assert repository.versions() == {first.version: first, second.version: second}
    assert repository.tags() == {"latest": first.version, "production": first.version}
    assert len(hub.repos["me/ae-moons"]["commits"]) == 3, "an empty one, and one for each version"
    move_tag(f"hf://me/ae-moons@{second.version[:9]}", "production")
    folder, pulled = pull("hf://me/ae-moons@production", tmp_path / "out")
    assert pulled == second
    assert zoo.load(folder).sample(3, seed=0).equal(zoo.load("hf://me/ae-moons@production").sample(3, seed=0))
    assert any("latest" in line and first.version[:12] in line for line in listing("hf://me/ae-moons", 1))


def test_an_interrupted_push_leaves_the_old_version(hub: Hub, tmp_path: Path) -> None:
    old, new = (version(tmp_path / name, name.encode()) for name in ("old", "new"))
    for number in range(20):
        hub.repos.clear()
        hub.fail_after = None
        open_repository("hf://me/m").push(tmp_path / "old", old)
        hub.fail_after = number
        try:
            open_repository("hf://me/m").push(tmp_path / "new", new)
            break
        except zoo.CheckpointError:
            pass
        hub.fail_after = None
        tagged = open_repository("hf://me/m").tags()["latest"]
        ended = VERSION + new.version in hub.repos["me/m"]["tags"] and "latest" not in hub.repos["me/m"]["tags"]
        assert tagged == (new if ended else old).version
        assert pull("hf://me/m", tmp_path / f"out{number}")[1] == (new if ended else old)
        open_repository("hf://me/m").push(tmp_path / "new", new)  # again
        assert pull("hf://me/m", tmp_path / f"again{number}")[1] == new
    assert number == 6  # repository, upload, commit, tag of the version, and latest in two steps


def test_a_changed_file_is_refused(hub: Hub, tmp_path: Path) -> None:
    found = version(tmp_path / "v", b"weights")
    open_repository("hf://me/m").push(tmp_path / "v", found)
    repo = hub.repos["me/m"]
    files = repo["commits"][repo["tags"][VERSION + found.version]]
    for name, message in ((manifest.WEIGHTS, manifest.WEIGHTS), (manifest.FILE, "manifest")):
        kept = files[name]
        files[name] = kept[:-3] + bytes([kept[-3] ^ 1]) + kept[-2:]
        with pytest.raises(zoo.CheckpointError, match=message):
            pull("hf://me/m", tmp_path / "out")
        files[name] = kept
        assert not (tmp_path / "out").exists()
    files[manifest.FILE] = b'{"model_type": "gpt2"}'
    with pytest.raises(zoo.CheckpointError, match="not a model that the zoo published"):
        pull("hf://me/m", tmp_path / "out")


def test_failures_of_the_hub_are_one_sentence(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(call: Any) -> str:
        with pytest.raises(zoo.CheckpointError) as found:
            call()
        text = str(found.value)
        assert text.startswith("hf://me/m")
        assert len(text.splitlines()) == 1
        return text

    found = version(tmp_path / "v", b"weights")
    assert "not found" in failing(lambda: pull("hf://me/m"))
    hub.denied = True
    assert "no permission" in failing(lambda: open_repository("hf://me/m").push(tmp_path / "v", found))
    assert "ORGANISATION/NAME" in failing(lambda: pull("hf://me/m/n"))
    hub.denied = False
    hub.repos["me/m"] = {"commits": {"0" * 40: {"README.md": b""}}, "branches": {"main": "0" * 40}, "tags": {}}
    assert "no published model" in failing(lambda: pull("hf://me/m")), "a repository that something else has written"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "cannot be reached" in failing(lambda: pull("hf://me/m"))


def test_the_stand_in_is_what_the_client_talks_to(hub: Hub) -> None:
    """Negative control: without the repository, the client finds nothing."""
    with pytest.raises(zoo.CheckpointError):
        open_repository("hf://me/m").tags()
    hub.repos["me/m"] = {"commits": {"0" * 40: {}}, "branches": {"main": "0" * 40}, "tags": {}}
    assert open_repository("hf://me/m").tags() == {}
