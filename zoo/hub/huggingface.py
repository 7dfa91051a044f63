"""A repository of Hugging Face's hub: `hf://organisation/name`.

Each version is one commit with the tag `v-<identifier>`. The tag `latest` is moved by every push. A tag is moved by
deleting and creating it; in between, `latest` is the head of the branch.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.core.errors import CheckpointError
from zoo.hub import manifest
from zoo.hub.address import HUGGING_FACE, LATEST
from zoo.hub.manifest import DIGEST, SHORT, Manifest
from zoo.hub.store import first_line, is_foreign

VERSION = "v-"  # prefix of the tag of a version
DENIED = (401, 403)
MISSING = (404, 410)


class HubRepository:
    """A model repository of the hub.

    Args:
        address: `hf://organisation/name`.

    Raises:
        CheckpointError: huggingface_hub is not installed, or the address does not have two parts.
    """

    def __init__(self, address: str) -> None:
        try:
            from huggingface_hub import HfApi, constants
        except ImportError:
            raise CheckpointError(f"{address}: needs huggingface_hub. Install generative-zoo[hub].") from None
        self.address, self.repo = address, address.removeprefix(HUGGING_FACE).strip("/")
        if self.repo.count("/") != 1:
            raise CheckpointError(f"{address}: not a repository of the hub. Write hf://ORGANISATION/NAME.")
        self.api: Any = HfApi(endpoint=constants.ENDPOINT, library_name="zoo")

    def versions(self) -> dict[str, Manifest]:
        """Identifier -> manifest of each version."""
        with self._reported():
            names = [tag.name.removeprefix(VERSION) for tag in self._tags() if tag.name.startswith(VERSION)]
            return {name: self._manifest(name) for name in names if DIGEST.fullmatch(name)}

    def tags(self) -> dict[str, str]:
        """Tag -> identifier of its version."""
        with self._reported():
            refs = self.api.list_repo_refs(self.repo)
            commits = {t.target_commit: t.name.removeprefix(VERSION) for t in refs.tags if t.name.startswith(VERSION)}
            main = next((branch.target_commit for branch in refs.branches if branch.name == "main"), "")
            moving = {LATEST: main} | {t.name: t.target_commit for t in refs.tags if not t.name.startswith(VERSION)}
            return {name: commits[commit] for name, commit in moving.items() if commit in commits}

    def push(self, folder: Path, found: Manifest) -> None:
        """Add a version by one commit, then its tag, then move `latest`."""
        from huggingface_hub import CommitOperationAdd

        with self._reported():
            self.api.create_repo(self.repo, exist_ok=True)
            if all(tag.name != VERSION + found.version for tag in self._tags()):
                files = [CommitOperationAdd(name, str(folder / name)) for name in (*found.files, manifest.FILE)]
                message = f"{found.name} {found.version[:SHORT]}"
                commit = self.api.create_commit(self.repo, files, commit_message=message)
                self.api.create_tag(self.repo, tag=VERSION + found.version, revision=commit.oid)
            self.tag(LATEST, found.version)

    def tag(self, tag: str, version: str) -> None:
        """Move a tag to a version."""
        with self._reported():
            if any(each.name == tag for each in self._tags()):
                self.api.delete_tag(self.repo, tag=tag)
            self.api.create_tag(self.repo, tag=tag, revision=VERSION + version)

    def fetch(self, version: str, folder: Path) -> Manifest:
        """Copy a version into an empty folder."""
        with self._reported(), tempfile.TemporaryDirectory(prefix="zoo-hub-") as place:
            found = self._manifest(version)
            for name in found.files:
                self._download(name, version, place).replace(folder / name)
            (folder / manifest.FILE).write_bytes(found.to_bytes())
            return found

    def _tags(self) -> list[Any]:
        return list(self.api.list_repo_refs(self.repo).tags)

    def _manifest(self, version: str) -> Manifest:
        with tempfile.TemporaryDirectory(prefix="zoo-hub-") as place:
            file = self._download(manifest.FILE, version, place)
            return manifest.parse_version(file.read_bytes(), version, self.address)

    def _download(self, name: str, version: str, place: str) -> Path:
        return Path(self.api.hf_hub_download(self.repo, name, revision=VERSION + version, local_dir=place))

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Report failures of the hub in one sentence.

        Raises:
            CheckpointError: no permission, no such repository, no network, or a name that the hub does not allow.
        """
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            yield
        except HFValidationError as error:
            raise CheckpointError(
                f"{self.address}: not a name that the hub allows ({first_line(error)}). Choose another."
            ) from None
        except LocalEntryNotFoundError as error:
            reason = first_line(error.__cause__ or error)
            raise CheckpointError(f"{self.address}: cannot be reached ({reason}). Check the network.") from None
        except Exception as raised:  # HTTP errors of the hub, and errors of connections in its client
            cause = (
                raised.__cause__
                if isinstance(raised, RuntimeError) and isinstance(raised.__cause__, Exception)
                else raised
            )
            if not isinstance(cause, OSError) and not is_foreign(cause):
                raise
            status = getattr(getattr(cause, "response", None), "status_code", None)
            reason = first_line(cause)
            if status in DENIED:
                raise CheckpointError(
                    f"{self.address}: no permission, or no such repository ({reason}). Log in by `hf auth login`."
                ) from None
            if status in MISSING:
                raise CheckpointError(f"{self.address}: not found ({reason}). Check the address.") from None
            raise CheckpointError(f"{self.address}: cannot be reached ({reason}). Check the network.") from None
