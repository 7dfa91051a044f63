"""Push, pull, tags, roll-back, interruptions, backup and restore, in a folder and in an object store."""

import io
import tarfile
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zoo
from zoo.cli.main import main
from zoo.hub import manifest
from zoo.hub.address import open_repository
from zoo.hub.bundle import without_folders
from zoo.hub.manifest import Manifest, digests
from zoo.hub.publish import listing, move_tag, pull, push
from zoo.hub.store import FolderRepository, backup, is_entry, restore


def version(folder: Path, content: bytes) -> Manifest:
    """A version whose weights are some bytes: stores do not read them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / manifest.WEIGHTS).write_bytes(content)
    (folder / manifest.CARD).write_text("card")
    found = Manifest(name="m", model="ae", data="moons", files=digests(folder))
    (folder / manifest.FILE).write_bytes(found.to_bytes())
    return found


def contents(store: str) -> dict[str, bytes]:
    fs, root = fsspec.core.url_to_fs(store)
    return {path[len(root) :]: fs.cat_file(path) for path in fs.find(root)}


def test_a_pulled_model_is_bit_identical(run: Path, store: str, tmp_path: Path) -> None:
    found = push(run, f"{store}/ae-moons", tags=["production"])
    folder, pulled = pull(f"{store}/ae-moons@production", tmp_path / "out")
    assert pulled == found
    expected, actual = zoo.load(run), zoo.load(folder)
    assert actual.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(x, expected.state_dict()[name]) for name, x in actual.state_dict().items())
    assert torch.equal(actual.sample(5, seed=1), expected.sample(5, seed=1))
    assert zoo.evaluate(folder, only=["reconstruction"]).scores == zoo.evaluate(run, only=["reconstruction"]).scores
    assert found.metrics.keys() == zoo.evaluate(run, only=["reconstruction"]).scores.keys()
    assert found.command.startswith("python train.py model=ae")
    assert found.seed == 0
    assert found.batches == 2
    assert torch.equal(zoo.load(f"{store}/ae-moons").sample(5, seed=1), expected.sample(5, seed=1))


def test_the_identifier_depends_on_content_alone(run: Path, store: str, tmp_path: Path) -> None:
    first = push(run, f"{store}/a").version
    assert push(run, f"{store}/a").version == first, "the same run twice is one version"
    assert list(open_repository(f"{store}/a").versions()) == [first]
    folder, _ = pull(f"{store}/a", tmp_path / "pulled")
    assert push(folder, f"{store}/b").version == first, "a copy keeps its identifier"
    half = push(run, f"{store}/a", half=True)
    assert half.version != first
    assert half.files[manifest.WEIGHTS]["size"] < 0.6 * manifest.read(folder).files[manifest.WEIGHTS]["size"]


@pytest.mark.parametrize("name", [manifest.WEIGHTS, manifest.CARD, "config.yaml", manifest.PICTURE, manifest.FILE])
def test_a_flipped_bit_is_found_and_named(run: Path, tmp_path: Path, name: str) -> None:
    found = push(run, f"{tmp_path}/s/a")
    file = tmp_path / "s/a/versions" / found.version / name
    content = bytearray(file.read_bytes())
    pull(f"{tmp_path}/s/a", tmp_path / "intact")
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(zoo.CheckpointError, match=name if name != manifest.FILE else r"manifest\.json|manifest of"):
        pull(f"{tmp_path}/s/a", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Broken(BaseException):
    """The end of the process."""


def failing_writes(monkeypatch: pytest.MonkeyPatch, fs: Any, after: int) -> None:
    """Let the file system fail at its write number `after`; a write of content leaves half of it."""
    left = [after]

    def fail(name: str) -> Any:
        call = getattr(type(fs), name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] >= 0:
                return call(self, *args, **kwargs)
            if name == "put_file":
                content = Path(args[0]).read_bytes()
                type(fs).pipe_file(self, args[1], content[: len(content) // 2])
            raise Broken

        return method

    for name in ("put_file", "mv"):
        monkeypatch.setattr(type(fs), name, fail(name))


def interruptions(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Interrupt a push at each write; check that the old version stays; return the number of writes."""
    old = version(tmp_path / "old", b"old weights")
    new = version(tmp_path / "new", b"new weights")
    for number in range(100):
        address = f"{store}/m{number}"
        repository = FolderRepository(address)
        repository.push(tmp_path / "old", old)
        with monkeypatch.context() as patch:
            failing_writes(patch, repository.fs, number)
            try:
                repository.push(tmp_path / "new", new)
                return number
            except Broken:
                pass
        assert FolderRepository(address).tags() == {"latest": old.version}
        _, pulled = pull(address, tmp_path / f"out{number}")
        assert pulled == old
        for each in FolderRepository(address).versions():
            pull(f"{address}@{each}", tmp_path / f"out{number}-{each}")
        repository.push(tmp_path / "new", new)  # again
        assert pull(address, tmp_path / f"again{number}")[1] == new
    raise AssertionError("the push never ended.")


def test_an_interrupted_push_leaves_the_old_version(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert interruptions(store, tmp_path, monkeypatch) == 7  # three files, written and renamed, and a tag


def test_the_check_of_interruptions_finds_a_wrong_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the manifest or the tag before the files."""

    def push_manifest_first(self: FolderRepository, folder: Path, found: Manifest) -> None:
        for name in (manifest.FILE, *found.files):
            self._write(f"versions/{found.version}/{name}", folder / name)
        self.tag("latest", found.version)

    def push_tag_first(self: FolderRepository, folder: Path, found: Manifest) -> None:
        self.tag("latest", found.version)
        for name in (*found.files, manifest.FILE):
            self._write(f"versions/{found.version}/{name}", folder / name)

    for number, wrong in enumerate((push_manifest_first, push_tag_first)):
        with monkeypatch.context() as patch:
            patch.setattr(FolderRepository, "push", wrong)
            with pytest.raises((zoo.CheckpointError, AssertionError)):
                interruptions(str(tmp_path / f"s{number}"), tmp_path / f"{number}", patch)


def test_concurrent_pushes_lose_no_version(tmp_path: Path) -> None:
    found = {n: version(tmp_path / f"v{n}", b"%d" % n) for n in range(8)}
    threads = [
        threading.Thread(target=FolderRepository(f"{tmp_path}/s/m").push, args=(tmp_path / f"v{n}", one))
        for n, one in found.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    repository = FolderRepository(f"{tmp_path}/s/m")
    assert set(repository.versions()) == {one.version for one in found.values()}
    assert set(repository.history("latest")) == set(repository.versions())


def test_tags_move_back_and_keep_their_history(store: str, tmp_path: Path) -> None:
    one, two = (version(tmp_path / name, name.encode()) for name in ("one", "two"))
    repository = FolderRepository(f"{store}/m")
    repository.push(tmp_path / "one", one)
    repository.tag("production", one.version)
    repository.push(tmp_path / "two", two)
    move_tag(f"{store}/m@latest", "production")
    assert repository.tags() == {"latest": two.version, "production": two.version}
    assert move_tag(f"{store}/m@{one.version[:8]}", "production") == one.version
    assert repository.tags() == {"latest": two.version, "production": one.version}
    assert repository.history("production") == [one.version, two.version, one.version]
    assert pull(f"{store}/m@production", tmp_path / "out")[1] == one


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(["push", "latest", "production", "tests"]), st.integers(0, 3)), max_size=12))
def test_any_sequence_of_operations_agrees_with_a_dictionary(
    tmp_path_factory: Any, steps: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    known = [version(folder / str(n), b"%d" % n) for n in range(4)]
    repository = FolderRepository(str(folder / "s/m"))
    versions, tags = dict[str, Manifest](), dict[str, str]()
    for operation, n in steps:
        if operation == "push":
            repository.push(folder / str(n), known[n])
            versions[known[n].version] = known[n]
            tags["latest"] = known[n].version
        elif known[n].version in versions:
            move_tag(f"{folder}/s/m@{known[n].version}", operation)
            tags[operation] = known[n].version
        else:
            with pytest.raises(zoo.CheckpointError):
                move_tag(f"{folder}/s/m@{known[n].version}", operation)
    assert repository.versions() == versions
    assert repository.tags() == tags


def test_a_destroyed_store_comes_back_from_its_backup(store: str, tmp_path: Path) -> None:
    for name, texts in {"a": ("1", "2"), "b": ("3",)}.items():
        for text in texts:
            found = version(tmp_path / text, text.encode())
            FolderRepository(f"{store}/{name}").push(tmp_path / text, found)
    move_tag(f"{store}/a@{version(tmp_path / '1', b'1').version}", "production")
    before = contents(store)
    assert backup(store, tmp_path / "all.tar") == len(before)
    fs, root = fsspec.core.url_to_fs(store)
    fs.rm(root, recursive=True)
    with pytest.raises(zoo.CheckpointError, match="no published model"):
        listing(store, 1)
    assert restore(tmp_path / "all.tar", store) == len(before)
    assert contents(store) == before
    assert restore(tmp_path / "all.tar", store) == 0, "what is there already stays"
    with pytest.raises(zoo.CheckpointError, match="exists"):
        backup(store, tmp_path / "all.tar")


def archive(file: Path, entries: dict[str, bytes], kind: bytes = tarfile.REGTYPE, mode: str = "w") -> Path:
    with tarfile.open(file, mode) as made:  # type: ignore[call-overload]
        for name, content in entries.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(content), "/etc/passwd"
            made.addfile(entry, io.BytesIO(content))
    return file


def test_damaged_and_hostile_backups_are_refused(tmp_path: Path) -> None:
    found = version(tmp_path / "v", b"weights")
    FolderRepository(f"{tmp_path}/s/m").push(tmp_path / "v", found)
    backup(f"{tmp_path}/s", tmp_path / "good.tar")
    with tarfile.open(tmp_path / "good.tar") as made:
        entries = {m.name: made.extractfile(m).read() for m in made.getmembers()}  # type: ignore[union-attr]
    weights = next(name for name in entries if name.endswith(manifest.WEIGHTS))
    assert restore(archive(tmp_path / "same.tar", entries), f"{tmp_path}/other") == len(entries)
    hostile = {
        "changed": archive(tmp_path / "1.tar", entries | {weights: b"others!"}),
        "outside": archive(tmp_path / "2.tar", entries | {"../../evil": b"x"}),
        "absolute": archive(tmp_path / "3.tar", entries | {"/tmp/zoo-evil": b"x"}),
        "link": archive(tmp_path / "4.tar", {weights: b""}, tarfile.SYMTYPE),
        "compressed": archive(tmp_path / "5.tar", entries, mode="w:gz"),
        "empty": archive(tmp_path / "6.tar", {}),
    }
    (tmp_path / "7.tar").write_bytes((tmp_path / "good.tar").read_bytes()[:-11000])
    for name, file in (hostile | {"truncated": tmp_path / "7.tar"}).items():
        with pytest.raises(zoo.CheckpointError, match=r"backup|damaged|changed"):
            restore(file, f"{tmp_path}/{name}")
        assert not (tmp_path / name).exists(), name
    assert not is_entry("m/versions/x/../../..")
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: pull(f"{s}/m@lates"), "did you mean 'latest'"),
        (lambda s: pull(f"{s}/m@123456"), "unknown version"),
        (lambda s: pull(f"{s}/nothing"), "no published model"),
        (lambda s: pull(f"{s}/m", Path(s)), "exists and holds something else"),
        (lambda s: pull("s4://bucket/m"), "did you mean 's3'"),
        (lambda s: pull("memory://a::memory://b/m"), "chain"),
        (lambda s: pull(f"{s}/m x"), "does not end in a name"),
        (lambda s: move_tag(f"{s}/m", "a/b"), "not a name for a tag"),
        (lambda s: move_tag(f"{s}/m", "0" * 64), "not a name for a tag"),
        (lambda s: push(Path(s) / "no", f"{s}/m"), "no run or checkpoint"),
        (lambda s: restore(Path(s) / "no.tar", s), "no.tar"),
    ],
)
def test_mistakes_are_named(call: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = version(tmp_path / "v", b"weights")
    FolderRepository(f"{tmp_path}/s/m").push(tmp_path / "v", found)
    with pytest.raises((zoo.CheckpointError, FileNotFoundError), match=message):
        call(f"{tmp_path}/s")


def test_a_place_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = version(tmp_path / "v", b"weights")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    repository = FolderRepository(f"{tmp_path}/s/m")
    monkeypatch.setattr(type(repository.fs), "put_file", refuse)
    with pytest.raises(zoo.CheckpointError, match="no permission"):
        repository.push(tmp_path / "v", found)


def test_errors_of_foreign_clients_are_reported_and_bugs_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = FolderRepository(f"{tmp_path}/s/m")
    foreign = type("NoCredentialsError", (Exception,), {"__module__": "botocore.exceptions"})
    for error, kind in ((foreign("Unable to locate credentials"), zoo.CheckpointError), (KeyError("bug"), KeyError)):
        with monkeypatch.context() as patch:
            patch.setattr(type(repository.fs), "isdir", lambda *_, error=error: (_ for _ in ()).throw(error))
            with pytest.raises(kind):
                repository.tags()


def test_paths_of_the_publisher_are_left_out(run: Path, tmp_path: Path) -> None:
    given = {"path": "/home/me/secret/notes", "n": 3, "list": ["~/x/y.txt", "a/b"], "word": "data.path=/home/me/notes/"}
    assert without_folders(given) == {"path": "notes", "n": 3, "list": ["y.txt", "a/b"], "word": "data.path=notes"}
    push(run, f"{tmp_path}/s/m")
    for name, content in contents(f"{tmp_path}/s").items():
        assert str(run.parent).encode() not in content, name


def test_a_run_with_links_is_not_published(run: Path, tmp_path: Path) -> None:
    import shutil

    secret = tmp_path / "secret.png"
    secret.write_text("secret")
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "samples/final.png").unlink()
    (copy / "samples/final.png").symlink_to(secret)
    with pytest.raises(zoo.ZooError, match="link"):
        push(copy, f"{tmp_path}/s/m")
    assert not (tmp_path / "s").exists()


def test_the_verbs(run: Path, cli: Any, tmp_path: Path) -> None:
    pushed = cli("push", str(run), "s/ae-moons", "--tag", "production", entry=main)
    assert pushed.code == 0, pushed.err
    listed = cli("store", "list", "s", entry=main)
    assert "latest production" in listed.out
    assert "ae on moons" in listed.out
    assert "reconstruction_mse@10k_test" in listed.out, "metrics with their protocol"
    assert cli("pull", "s/ae-moons@production", "--out", "p", entry=main).code == 0
    assert "init_from=p" in cli("resume=p").err, "a published model is not resumed"
    assert cli("store", "backup", "s", "all.tar", entry=main).code == 0
    assert cli("store", "restore", "all.tar", "t", entry=main).code == 0
    assert cli("sample", "t/ae-moons@production", "-n", "4", "--out", "x.npy", entry=main).code == 0
    assert Path("x.npy").is_file()
    failed = cli("pull", "s/ae-moons@produktion", entry=main)
    assert failed.code == 1
    assert failed.err.startswith("zoo: ")
    assert "did you mean 'production'" in failed.err
