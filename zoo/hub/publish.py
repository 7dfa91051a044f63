"""Push and pull models, and move their tags."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from zoo.core.errors import CheckpointError, printable
from zoo.hub.address import HUGGING_FACE, LATEST, MLFLOW, name_of, open_repository, split_version
from zoo.hub.card import number
from zoo.hub.manifest import DIGEST, NAME, SHORT, Manifest
from zoo.hub.pretrained import resolve
from zoo.hub.store import find_version, names_in
from zoo.hub.store import pull as pull_version


def push(
    run: str | Path,
    target: str,
    *,
    tags: Sequence[str] = (),
    half: bool = False,
    licence: str | None = None,
) -> Manifest:
    """Publish a trained model, with its configuration, metrics, samples and model card.

    Args:
        run: a run folder, checkpoint in one, pulled folder, name or address.
        target: STORE/NAME: a folder, a URL of fsspec, `hf://organisation/name`, or `mlflow://name`.
        tags: tags that move to the version, in addition to `latest`.
        half: store weights in half precision.
        licence: of the training data; None is that of the data set, if it is known.

    Raises:
        CheckpointError: not a run; no permission or network; a name or tag that is not allowed.
    """
    from zoo.hub.bundle import bundle

    for tag in tags:
        check_tag(tag)
    repository, local = open_repository(target), resolve(run)
    with tempfile.TemporaryDirectory(prefix="zoo-push-") as place:
        folder = Path(place)
        found = bundle(local, folder, name_of(target), half=half, licence=licence)
        repository.push(folder, found)
    for tag in tags:
        repository.tag(tag, found.version)
    return found


def pull(source: str, out: Path | None = None) -> tuple[Path, Manifest]:
    """Copy a published model into a new folder, and verify it: folder and manifest.

    Args:
        source: STORE/NAME, with `@TAG` or `@VERSION` if it is not the latest.
        out: the folder; None is NAME, in the current one.

    Raises:
        CheckpointError: no such version, a changed file, no network, or a folder with other files.
    """
    place, wanted = split_version(source)
    out = Path(name_of(place)) if out is None else out
    return out, pull_version(open_repository(place), wanted, out)


def move_tag(address: str, tag: str) -> str:
    """Move a tag to the version of an address, `STORE/NAME@VERSION`; return its identifier.

    Raises:
        CheckpointError: no such version, or a tag that is not allowed.
    """
    check_tag(tag)
    place, wanted = split_version(address)
    repository = open_repository(place)
    version = find_version(repository, wanted)
    repository.tag(tag, version)
    return version


def check_tag(tag: str) -> None:
    """Check the name of a tag.

    Raises:
        CheckpointError: not a name, or one that looks like a version.
    """
    if not NAME.fullmatch(tag) or DIGEST.fullmatch(tag.removeprefix("v-")):
        raise CheckpointError(f"tag={tag}: not a name for a tag. Use letters, digits and dashes, such as production.")


def listing(address: str, n_metrics: int) -> list[str]:
    """Lines that describe the models of a store, or the versions of one model; the latest first.

    Raises:
        CheckpointError: nothing was published there.
    """
    place = address.rstrip("/")
    names = [] if place.startswith((HUGGING_FACE, MLFLOW)) else names_in(place)
    lines = []
    for where in [f"{place}/{name}" for name in names] or [place]:
        repository = open_repository(where)
        tags, versions = repository.tags(), repository.versions()
        latest = tags.get(LATEST, "")
        for version in sorted(versions, key=lambda v: v != latest):
            if names and version != latest and version not in tags.values():
                continue
            found = versions[version]
            named = " ".join(sorted(tag for tag, tagged in tags.items() if tagged == version))
            lines.append(f"{where}@{version[:SHORT]}  {named}".rstrip())
            lines.append(f"  {printable(found.summary)}, {found.size / 1e6:.2f} MB")
            for key, metric in sorted(found.metrics.items())[:n_metrics]:
                lines.append(f"  {printable(key)} {number(metric.get('value'), metric.get('error'))}")
    if not lines:
        raise CheckpointError(f"{address}: no published model is there. Check the address, or push one by `zoo push`.")
    return lines
