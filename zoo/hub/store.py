"""Store of models: a local folder, or any URL of fsspec (`s3://bucket/models`, `memory://models` ...).

```
STORE/NAME/versions/<identifier>/manifest.json   written last: without it, there is no version
                                 model.safetensors  config.yaml  README.md  samples.png
STORE/NAME/tags/<tag>/<number>-<identifier>      empty files; the highest number is the current version
```

No file is ever changed, so the layout also suits object stores. An interrupted push leaves all versions and tags as
they were, and every former version of a tag stays known.
"""

import posixpath
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import fsspec
from fsspec.core import url_to_fs

from zoo.core.errors import CheckpointError
from zoo.core.registry import unknown_name_message
from zoo.hub import manifest
from zoo.hub.address import LATEST
from zoo.hub.manifest import DIGEST, NAME, SHORT, Manifest

BLOCK = 2**20  # bytes
COMMON = ["az", "file", "gs", "hf", "s3", "sftp"]  # protocols that a message lists
MIN_PREFIX = 6  # characters of an identifier that name a version


class Repository(Protocol):
    """All versions of one model, somewhere."""

    address: str

    def versions(self) -> dict[str, Manifest]:
        """Identifier -> manifest of each version."""

    def tags(self) -> dict[str, str]:
        """Tag -> identifier of its version."""

    def push(self, folder: Path, found: Manifest) -> None:
        """Add a version, and move `latest` to it. A version that exists already is not written again."""

    def tag(self, tag: str, version: str) -> None:
        """Move a tag to a version."""

    def fetch(self, version: str, folder: Path) -> Manifest:
        """Copy a version into an empty folder; not verified."""


class FolderRepository:
    """A repository in a folder of a file system.

    Args:
        address: URL or path of the folder, whose last part is the name of the model.

    Raises:
        CheckpointError: a URL that fsspec does not know, or whose package is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.fs, self.root = open_url(address)

    def versions(self) -> dict[str, Manifest]:
        """Identifier -> manifest of each complete version."""
        with reported(self.address):
            names = [name for name in self._names("versions") if DIGEST.fullmatch(name)]
            return {name: found for name in names if (found := self._manifest(name)) is not None}

    def tags(self) -> dict[str, str]:
        """Tag -> identifier of its version."""
        with reported(self.address):
            moves = {tag: self.history(tag) for tag in self._names("tags") if NAME.fullmatch(tag)}
        return {tag: found[-1] for tag, found in moves.items() if found}

    def history(self, tag: str) -> list[str]:
        """Identifiers of all versions that a tag has had, in order."""
        found = [name.partition("-") for name in sorted(self._names(f"tags/{tag}"))]
        return [version for number, _, version in found if number.isdigit() and DIGEST.fullmatch(version)]

    def push(self, folder: Path, found: Manifest) -> None:
        """Add a version: its files, then its manifest, then the tag."""
        with reported(self.address):
            version = found.version
            if self._manifest(version) is None:
                for name in (*found.files, manifest.FILE):
                    self._write(f"versions/{version}/{name}", folder / name)
            if self.tags().get(LATEST) != version:
                self.tag(LATEST, version)

    def tag(self, tag: str, version: str) -> None:
        """Move a tag to a version."""
        with reported(self.address):
            moves = [int(number) for name in self._names(f"tags/{tag}") if (number := name.partition("-")[0]).isdigit()]
            self._write(f"tags/{tag}/{max(moves, default=0) + 1:06}-{version}")

    def fetch(self, version: str, folder: Path) -> Manifest:
        """Copy a version into an empty folder.

        Raises:
            CheckpointError: there is no such version, or a file is missing or longer than in its manifest.
        """
        with reported(self.address):
            found = self._manifest(version)
            if found is None:
                raise CheckpointError(f"{self.address}: version {version[:SHORT]} is incomplete. Push it again.")
            download(self.fs, f"{self.root}/versions/{version}", found, folder, self.address)
            (folder / manifest.FILE).write_bytes(found.to_bytes())
            return found

    def _manifest(self, version: str) -> Manifest | None:
        """Manifest of a version; None if it is incomplete.

        Raises:
            CheckpointError: it was changed.
        """
        place = f"{self.root}/versions/{version}/{manifest.FILE}"
        if not self.fs.isfile(place):
            return None
        with self.fs.open(place, "rb") as file:
            return manifest.parse_version(file.read(manifest.MAX_BYTES + 1), version, self.address)

    def _names(self, folder: str) -> list[str]:
        """Names in a folder of the repository; none if it does not exist."""
        place = f"{self.root}/{folder}"
        self.fs.invalidate_cache()
        return sorted(posixpath.basename(p.rstrip("/")) for p in self.fs.ls(place, detail=False)) if (
            self.fs.isdir(place)) else []  # fmt: skip

    def _write(self, name: str, source: Path | None = None) -> None:
        """Copy a file into the repository, or write an empty one. It appears at once, by a change of its name."""
        place = f"{self.root}/{name}"
        self.fs.makedirs(posixpath.dirname(place), exist_ok=True)
        if source is None:
            self.fs.pipe_file(f"{place}.draft", b"")
        else:
            self.fs.put_file(str(source), f"{place}.draft")
        self.fs.mv(f"{place}.draft", place)


def download(fs: Any, root: str, found: Manifest, folder: Path, address: str) -> None:
    """Copy the files that a manifest lists, and no byte more than its sizes.

    Raises:
        CheckpointError: a file is missing or longer.
    """
    for name, entry in found.files.items():
        if not fs.isfile(f"{root}/{name}"):
            raise CheckpointError(f"{address}: {name} is missing. Push the model again.")
        left = entry["size"]
        with fs.open(f"{root}/{name}", "rb") as source, (folder / name).open("wb") as target:
            while block := source.read(min(BLOCK, left + 1)):
                left -= len(block)
                if left < 0:
                    raise CheckpointError(f"{address}: {name} has more bytes than in its manifest. Push it again.")
                target.write(block)


def open_url(address: str) -> tuple[Any, str]:
    """File system and path of a URL or path.

    Raises:
        CheckpointError: an unknown protocol, a missing package, or a chain of file systems.
    """
    if "::" in address:
        raise CheckpointError(f"{address}: a chain of file systems. Give one URL, such as s3://bucket/models/NAME.")
    try:
        with reported(address):
            fs, root = url_to_fs(address)
    except (ValueError, ImportError) as error:
        protocol = address.partition("://")[0]
        if protocol not in fsspec.available_protocols():
            raise CheckpointError(f"{address}: {unknown_name_message('protocol', protocol, COMMON)}.") from None
        raise CheckpointError(f"{address}: cannot be opened ({first_line(error)}). Install what it names.") from None
    return fs, root.rstrip("/")


@contextmanager
def reported(address: str) -> Iterator[None]:
    """Report failures of a file system in one sentence.

    Raises:
        CheckpointError: no permission, no network, or another failure.
    """
    try:
        yield
    except PermissionError as error:
        raise CheckpointError(
            f"{address}: no permission ({first_line(error)}). Check your credentials, or choose another address."
        ) from None
    except FileNotFoundError as error:
        raise CheckpointError(f"{address}: not found ({first_line(error)}). Check the address.") from None
    except OSError as error:  # also errors of connections
        raise CheckpointError(
            f"{address}: cannot be reached or written ({first_line(error)}). Check the network and the address."
        ) from None
    except Exception as error:  # the clients of object stores have their own classes, such as NoCredentialsError
        if not is_foreign(error):
            raise
        raise CheckpointError(f"{address}: {first_line(error)}. Check your credentials and the address.") from None


def is_foreign(error: Exception) -> bool:
    """Whether an error is one of another package: of its network, and not a fault in the code here."""
    return type(error).__module__.partition(".")[0] not in ("builtins", "zoo")


def first_line(error: BaseException) -> str:
    """First line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def find_version(repository: Repository, wanted: str) -> str:
    """Identifier of a tag, or of the first characters of an identifier.

    Raises:
        CheckpointError: no such version, or several.
    """
    tags = repository.tags()
    if wanted in tags:
        return tags[wanted]
    versions = list(repository.versions())
    if not versions:
        raise CheckpointError(
            f"{repository.address}: no published model is there. Check the address, or push one by `zoo push`."
        )
    found = [version for version in versions if len(wanted) >= MIN_PREFIX and version.startswith(wanted)]
    if len(found) > 1:
        raise CheckpointError(f"{repository.address}@{wanted}: the start of {len(found)} versions. Give more digits.")
    if not found:
        known = [*tags, *(version[:SHORT] for version in versions)]
        raise CheckpointError(f"{repository.address}@{wanted}: {unknown_name_message('version', wanted, known)}.")
    return found[0]


def pull(repository: Repository, wanted: str, out: Path) -> Manifest:
    """Copy a version into a new folder, and verify every file. A folder that has the version already is left as it is.

    Raises:
        CheckpointError: no such version, a changed file, or a folder with other files. Then nothing is written.
    """
    version = find_version(repository, wanted)
    if (out / manifest.FILE).is_file() and manifest.read(out).version == version:
        manifest.verify(found := manifest.read(out), out)
        return found
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"--out={out}: exists and holds something else. Choose a new folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as place:
        draft = Path(place) / "model"
        draft.mkdir()
        found = repository.fetch(version, draft)
        manifest.verify(found, draft)
        if out.is_dir():
            out.rmdir()
        draft.rename(out)
    return found


def names_in(store: str) -> list[str]:
    """Names of the models in a store."""
    fs, root = open_url(store)
    with reported(store):
        fs.invalidate_cache()
        found = sorted(posixpath.basename(p.rstrip("/")) for p in fs.ls(root, detail=False)) if fs.isdir(root) else []
        return [name for name in found if NAME.fullmatch(name) and fs.isdir(f"{root}/{name}/versions")]


def backup(store: str, file: Path) -> int:
    """Write all models, versions and tags of a store into one tar file; return the number of files.

    Raises:
        CheckpointError: nothing is there, or the file exists.
    """
    fs, root = open_url(store)
    if file.exists():
        raise CheckpointError(f"{file}: exists. Choose another name for the backup.")
    with reported(store):
        fs.invalidate_cache()
        names = names_in(store)
        paths = sorted(p for name in names for p in fs.find(f"{root}/{name}") if not p.endswith(".draft"))
        if not paths:
            raise CheckpointError(f"{store}: no published model is there. Check the address.")
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.draft")
        try:
            with tarfile.open(draft, "w") as archive:
                for path in paths:
                    entry = tarfile.TarInfo(path[len(root) :].lstrip("/"))
                    entry.size = fs.size(path)
                    with fs.open(path, "rb") as content:
                        archive.addfile(entry, content)
            draft.rename(file)
        finally:
            draft.unlink(missing_ok=True)
    return len(paths)


def restore(file: Path, store: str) -> int:
    """Write the models, versions and tags of a backup into a store; return the number of files.

    Each version is verified first. Versions that the store has already are left as they are.

    Raises:
        CheckpointError: not a backup, or a version that does not verify; nothing is written then.
    """
    fs, root = open_url(store)
    with tempfile.TemporaryDirectory(prefix="zoo-restore-") as place:
        folder, count = Path(place), 0
        try:
            with tarfile.open(file, "r:") as archive:  # not compressed, so that nothing expands
                members = archive.getmembers()
                good = all(m.isfile() and not m.issparse() and is_entry(m.name) for m in members)
                if not good or not members:
                    raise CheckpointError(f"{file}: not a backup of `zoo store backup`. Choose another file.")
                archive.extractall(folder, filter="data")
        except (tarfile.TarError, EOFError) as error:
            raise CheckpointError(f"{file}: damaged ({first_line(error)}). Use another backup.") from None
        for one in folder.glob(f"*/versions/*/{manifest.FILE}"):
            manifest.verify(manifest.parse_version(one.read_bytes(), one.parent.name, str(file)), one.parent)
        with reported(store):
            manifests = [member.name for member in members if member.name.endswith(f"/{manifest.FILE}")]
            tags = [member.name for member in members if member.name.split("/")[1] == "tags"]
            files = [member.name for member in members if member.name not in {*manifests, *tags}]
            for name in (*files, *manifests, *tags):  # a version appears when it is complete
                if not fs.isfile(f"{root}/{name}"):
                    fs.makedirs(posixpath.dirname(f"{root}/{name}"), exist_ok=True)
                    fs.pipe_file(f"{root}/{name}", (folder / name).read_bytes())
                    count += 1
    return count


def is_entry(path: str) -> bool:
    """Whether a path is that of a file in a store."""
    parts = path.split("/")
    if len(parts) != 4 or not NAME.fullmatch(parts[0]) or not manifest.FILE_NAME.fullmatch(parts[3]):
        return False
    return bool(DIGEST.fullmatch(parts[2])) if parts[1] == "versions" else parts[1] == "tags" and bool(
        NAME.fullmatch(parts[2]))  # fmt: skip
