"""The manifest: everything that is registered, known from real imports in a process of their own, and cached.

An import of all modules takes torch and Lightning, seconds; the manifest takes milliseconds. It is made again when a
source file, a plug-in, Python or the zoo itself changes.
"""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from typing import Any

from zoo.core.cache import cache_root
from zoo.core.errors import ZooError

GROUP = "zoo.plugins"
KEPT = 8  # manifests in the cache: one for each environment and combination of plug-ins
PATIENCE = 1.0  # seconds before the first look-up explains why it takes so long

# Run in another process: import everything and write the manifest, whatever the modules print.
_CHILD = """
import importlib, json, sys
module, function, out, sys.path[:] = json.load(sys.stdin)
found = getattr(importlib.import_module(module), function)()
with open(out, "w") as file:
    json.dump(found, file)
"""


def plugins() -> list[EntryPoint]:
    """Entry points of installed plug-ins, each once."""
    return sorted({(p.name, p.value): p for p in entry_points(group=GROUP)}.values(), key=lambda p: (p.name, p.value))


@dataclass(frozen=True)
class Source:
    """A module to import, because its import may register something."""

    module: str
    plugin: EntryPoint | None = None

    def load(self) -> None:
        """Import it."""
        if self.plugin is None:
            import_module(self.module)
        else:
            self.plugin.load()

    def __str__(self) -> str:
        if self.plugin is None:
            return f"module {self.module}"
        owner = self.plugin.dist.name if self.plugin.dist else "an unknown distribution"
        return f"zoo plug-in {self.plugin.name!r} of {owner}"


def sources(packages: Sequence[str]) -> Iterator[Source]:
    """All modules below the packages, then the plug-ins."""
    for package in packages:
        for folder in _locations(package):
            for path in sorted(folder.rglob("*.py")):
                parts = path.relative_to(folder).with_suffix("").parts
                names = parts[:-1] if parts[-1] == "__init__" else parts
                if all(name.isidentifier() for name in names) and "__main__" not in names:
                    yield Source(".".join((package, *names)))
    for point in plugins():
        yield Source(point.module, point)


def _locations(package: str) -> list[Path]:
    """Folders of a package; its parent packages are imported."""
    spec = find_spec(package)
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def manifest(packages: Sequence[str], index: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The cached result of `index`, computed again where the cache is out of date or damaged.

    Args:
        packages: whose modules register things.
        index: imports them all; a function at the top level of its module.

    Raises:
        ZooError: the process that imports everything has failed.
    """
    path = cache_root() / f"manifest-{_key(packages)}.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["site"] in (None, _site()) and {"entries", "failures", "folders"} <= found.keys():
            return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # absent, or cut off: it is made again
    try:
        found = _indexed(index)
    except OSError:  # no other process can be started, or no temporary folder is there
        return index()  # not kept: it holds what this program has registered itself
    found["site"] = _site() if found["failures"] else None
    _write(path, json.dumps(found))
    return found


def _key(packages: Sequence[str]) -> str:
    """A digest of everything that the manifest depends on."""
    state: list[Any] = [sys.version, sys.prefix]
    folders = {folder for package in packages for folder in _locations(package.partition(".")[0])}
    files = {path for folder in folders for path in folder.rglob("*.py")}
    for point in plugins():
        state.append((point.name, point.value, point.dist and (point.dist.name, point.dist.version)))
        try:
            spec = find_spec(point.module.partition(".")[0])
        except (ImportError, ValueError):  # the import will say so
            continue
        if spec and spec.submodule_search_locations:
            files |= {path for folder in spec.submodule_search_locations for path in Path(folder).rglob("*.py")}
        elif spec and spec.origin:
            files.add(Path(spec.origin))
    for path in sorted(files):
        try:
            stat = path.stat()
        except OSError:  # removed meanwhile, or inside an archive
            continue
        state.append((str(path), stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]


def _site() -> list[int]:
    """When packages were last installed: what failed for want of one is tried again afterwards."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return [os.stat(folder).st_mtime_ns for folder in sorted(folders) if os.path.isdir(folder)]


def _indexed(index: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a function in another process."""
    notice = Timer(PATIENCE, print, ("zoo: indexing models, once ...",), {"file": sys.stderr, "flush": True})
    notice.daemon = True
    if "_ZOO_COMPLETE" not in os.environ:  # a shell that completes would show it behind the prompt
        notice.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "manifest.json"
            job = json.dumps([index.__module__, index.__name__, str(out), [str(p) for p in sys.path]])
            done = subprocess.run([sys.executable, "-c", _CHILD], input=job, capture_output=True, text=True)
            if done.returncode:
                said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
                raise ZooError(f"indexing the models failed with exit status {done.returncode}: {said}.")
            found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
            return found
    finally:
        notice.cancel()


def _write(path: Path, text: str) -> None:
    """Write the cache whole or not at all, and remove the oldest files beyond `KEPT`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".manifest", delete=False) as f:
            f.write(text)
        os.replace(f.name, path)
        others = sorted(path.parent.glob("manifest-*.json"), key=lambda p: p.stat().st_mtime)
        for old in others[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(
            f"{path.parent}: the index of models cannot be kept ({error.strerror}), and is made anew by each command. "
            f"Set ZOO_CACHE to a folder that can be written to.",
            stacklevel=4,
        )
