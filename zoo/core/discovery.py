"""Cached manifest of everything that is registered, built by real imports in a subprocess.

Importing all modules imports torch and Lightning, which takes seconds; reading the manifest takes milliseconds. It is
rebuilt when a source file, a plug-in, Python or the zoo itself changes.
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
MAX_MANIFESTS = 8  # in the cache: one per environment and combination of plug-ins
NOTICE_DELAY = 1.0  # seconds before a notice is printed

# Code of the subprocess; the result goes to a file, because imported modules may print.
_CHILD = """
import importlib, json, sys
module, function, out, sys.path[:] = json.load(sys.stdin)
importlib.import_module("zoo.core.lazy_imports").install()
found = getattr(importlib.import_module(module), function)()
with open(out, "w") as file:
    json.dump(found, file)
"""


def plugins() -> list[EntryPoint]:
    """Entry points of installed plug-ins, without duplicates."""
    return sorted({(p.name, p.value): p for p in entry_points(group=GROUP)}.values(), key=lambda p: (p.name, p.value))


@dataclass(frozen=True)
class Source:
    """A module or plug-in whose import may register something."""

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
    """Yield all modules below the packages, then the plug-ins."""
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
    """Return the cached result of `index`, recomputed if the cache is outdated or damaged.

    Args:
        packages: packages whose modules register things.
        index: imports them all; a top-level function of its module.

    Raises:
        ZooError: the subprocess failed.
    """
    key = _key(packages)
    path = cache_root() / f"manifest-{key}.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["site"] in (None, _site()) and {"entries", "failures", "folders"} <= found.keys():
            return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # absent or damaged: rebuild
    try:
        found = _run_in_subprocess(index)
    except OSError:  # a subprocess or temporary folder is not possible
        return index()  # not cached: it includes what this process has registered
    found["site"] = _site() if found["failures"] else None
    if _key(packages) == key:  # no source has changed meanwhile
        _write(path, json.dumps(found))
    return found


def _key(packages: Sequence[str]) -> str:
    """Digest of everything that the manifest depends on."""
    state: list[Any] = [sys.version, sys.prefix]
    folders = {folder for package in packages for folder in _locations(package.partition(".")[0])}
    files = {path for folder in folders for path in folder.rglob("*.py")}
    for point in plugins():
        state.append((point.name, point.value, point.dist and (point.dist.name, point.dist.version)))
        try:
            spec = find_spec(point.module.partition(".")[0])
        except (ImportError, ValueError):  # reported by the import
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
    """Modification times of the package folders: after an installation, failed imports are tried again."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return [os.stat(folder).st_mtime_ns for folder in sorted(folders) if os.path.isdir(folder)]


def _run_in_subprocess(index: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a function in a subprocess and return its result."""
    notice = Timer(NOTICE_DELAY, print, ("zoo: indexing models, once ...",), {"file": sys.stderr, "flush": True})
    notice.daemon = True
    if "_ZOO_COMPLETE" not in os.environ:  # shell completion would print it behind the prompt
        notice.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "manifest.json"
            job = json.dumps([index.__module__, index.__name__, str(out), [str(p) for p in sys.path]])
            done = subprocess.run([sys.executable, "-c", _CHILD], input=job, capture_output=True, text=True)
            if done.returncode:
                last_line = (done.stderr.strip().splitlines() or ["nothing"])[-1]
                raise ZooError(f"indexing the models failed with exit status {done.returncode}: {last_line}.")
            found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
            return found
    finally:
        notice.cancel()


def _write(path: Path, text: str) -> None:
    """Write the cache atomically, and remove the oldest files beyond `MAX_MANIFESTS`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".manifest", delete=False) as f:
            f.write(text)
        os.replace(f.name, path)
        others = sorted(path.parent.glob("manifest-*.json"), key=lambda p: p.stat().st_mtime)
        for old in others[:-MAX_MANIFESTS]:
            old.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(
            f"{path.parent}: the index of models cannot be cached ({error.strerror}), and is rebuilt by each command. "
            f"Set ZOO_CACHE to a writable folder.",
            stacklevel=4,
        )
