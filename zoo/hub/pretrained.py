"""Names, addresses and folders of trained models: one function finds them all. Does not import torch.

The catalogue of pretrained models is the folder `weights` of this package. It holds one folder for each name, with a
manifest, and with the files unless the manifest names another source.
"""

import difflib
import shutil
import tempfile
from functools import cache
from pathlib import Path

from zoo.core.cache import cache_root
from zoo.core.errors import CheckpointError
from zoo.core.registry import unknown_name_message
from zoo.hub import manifest
from zoo.hub.address import is_repository, name_of, open_repository, split_version
from zoo.hub.manifest import SHORT, Manifest

WEIGHTS = Path(__file__).with_name("weights")


@cache
def catalogue(folder: Path = WEIGHTS) -> dict[str, Manifest]:
    """Name -> manifest of each pretrained model."""
    return {file.parent.name: manifest.read(file.parent) for file in sorted(folder.glob(f"*/{manifest.FILE}"))}


def entry(name: str) -> Manifest:
    """Manifest of a pretrained model.

    Raises:
        CheckpointError: there is none of this name.
    """
    have = catalogue()
    if name not in have:
        hint = unknown_name_message("pretrained model", name, list(have))
        raise CheckpointError(f"{hint}. `zoo list --pretrained` shows all.")
    return have[name]


def pretrained_name(model: str, variant: str) -> str:
    """Name of a pretrained model: `vae` and `digits` are `vae-digits`, or the whole name.

    Raises:
        CheckpointError: there is none.
    """
    name = variant if variant in catalogue() else f"{model}-{variant}"
    entry(name)
    return name


def resolve(run: str | Path) -> Path:
    """Local folder or file of a trained model. A path that exists comes before a name.

    Args:
        run: a run folder, checkpoint or export; a name of the catalogue; or the address of a published model, with a
            version or tag if it is not the latest: `hf://organisation/name@production`, `s3://bucket/models/name`.

    Returns:
        The path as it was given; of names and addresses, a verified copy in the cache. A path that does not exist is
        returned too: opening it reports the problem.

    Raises:
        CheckpointError: no such version, a changed file, no network, or a name that is nearly one of the catalogue.
    """
    text, path = str(run), Path(run)
    if path.exists() and not is_repository(path):
        return path
    if "://" in text or is_repository(Path(split_version(text)[0])):
        return cached_version(text)
    if text in catalogue():
        return cached_entry(text, catalogue()[text])
    close = difflib.get_close_matches(text, list(catalogue()), n=1)
    if close:
        raise CheckpointError(
            f"{text}: neither a run nor a pretrained model. Did you mean {close[0]!r}? "
            f"`zoo list --pretrained` shows all."
        )
    return path


def default_output(run: str | Path, folder: str, file: str) -> Path:
    """Default place of an output: a folder of the run; of a name or address, NAME-FILE in the current folder."""
    local = resolve(run)
    if local != Path(run):
        return Path(f"{name_of(split_version(str(run))[0])}-{file}")
    return (local if local.is_dir() else local.parent) / folder / file


def cached_version(address: str) -> Path:
    """Copy a published version into the cache, unless it is there."""
    from zoo.hub.store import find_version, pull

    place, wanted = split_version(address)
    repository = open_repository(place)
    version = find_version(repository, wanted)
    out = cache_folder(name_of(place), version)
    if out.exists() and not is_intact(out, version):
        shutil.rmtree(out)
    pull(repository, version, out)
    return out


def cached_entry(name: str, entry: Manifest) -> Path:
    """Copy a model of the catalogue into the cache, unless it is there."""
    out = cache_folder(name, entry.version)
    if is_intact(out, entry.version):
        return out
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=out.parent) as place:
        draft = Path(place) / "model"
        draft.mkdir()
        if entry.source:
            open_repository(entry.source).fetch(entry.version, draft)
        else:
            for file in entry.files:
                shutil.copyfile(WEIGHTS / name / file, draft / file)
            (draft / manifest.FILE).write_bytes(entry.to_bytes())
        manifest.verify(entry, draft)
        try:
            draft.rename(out)
        except OSError:
            if not is_intact(out, entry.version):  # another process was faster
                raise
    return out


def cache_folder(name: str, version: str) -> Path:
    """Folder in the cache of a version."""
    return cache_root() / "models" / f"{name}-{version[:SHORT]}"


def is_intact(folder: Path, version: str) -> bool:
    """Whether a folder holds a version, unchanged."""
    if not (folder / manifest.FILE).is_file():
        return False
    try:
        found = manifest.read(folder)
        manifest.verify(found, folder)
    except CheckpointError:
        return False
    return found.version == version
