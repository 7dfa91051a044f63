"""List the images of a folder, and assign them to splits."""

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from zoo.core.errors import DataError
from zoo.data.image import decode

Share = Annotated[float, Interval(gt=0.0, lt=1.0)]
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


MIN_HELD_OUT = 2  # images of a split that is drawn, where there are enough: a variance needs two


@dataclass
class FolderListing:
    """Images of a folder, sorted by name, with their labels and splits."""

    files: list[str]  # relative to the folder
    labels: list[int] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    splits: dict[str, list[int]] = field(default_factory=dict)  # indices of files
    ignored: int = 0


def list_files(root: Path) -> tuple[list[str], Counter[str]]:
    """List the images below a folder as sorted relative paths, and count the other files by suffix.

    Hidden files and folders are skipped; each link is followed once.

    Raises:
        DataError: no such folder, or it cannot be listed.
    """
    if not root.is_dir():
        reason = "a file. Unpack it and give the folder" if root.exists() else "not found. Give a folder of images"
        raise DataError(f"data.path={root}: {reason}.")

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be listed ({error.strerror}). Change its permissions.") from error

    files, others, seen = [], Counter[str](), {os.path.realpath(root)}
    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        inside = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(folder, name))
            if not name.startswith((".", "__MACOSX")) and real not in seen:
                seen.add(real)
                inside.append(name)
        folders[:] = inside
        below = Path(folder).relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for name in names:  # strings: with a `Path` for each this takes three times as long
            if name.startswith("."):
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix in decode.SUFFIXES:
                files.append(prefix + name)
            else:
                others[suffix or "no suffix"] += 1
    return sorted(files), others


def assign_splits(
    root: Path, files: list[str], others: Counter[str], labels: bool, fractions: tuple[float, float]
) -> FolderListing:
    """Derive splits and classes from the folders of the files.

    Raises:
        DataError: fewer than three images; the message counts the other files.
    """
    if len(files) < 3:
        most = sorted(others.items(), key=lambda item: (-item[1], item[0]))[:5]
        kinds = ", ".join(f"{n:,} {suffix}" for suffix, n in most) or "nothing else"
        raise DataError(
            f"data.path={root}: {len(files)} images and {kinds}. Give a folder with at least three images "
            f"({' '.join(sorted(decode.SUFFIXES))}), in sub-folders or not."
        )
    # train / val / test folders are splits; {bus, car, train} are classes
    tops = {file.partition("/")[0] for file in files if "/" in file}
    known = {top: split for top in tops for split, names in SPLITS.items() if top.lower() in names}
    flat = any("/" not in file for file in files)
    laid_out = "train" in known.values() and (len(set(known.values())) > 1 or (len(known) == len(tops) and not flat))
    total = len(files)
    if laid_out:
        files = [file for file in files if file.partition("/")[0] in known and "/" in file]
    split_of = [known[file.partition("/")[0]] if laid_out else "train" for file in files]
    below = [file.partition("/")[2] if laid_out else file for file in files]

    found = FolderListing(files, labels=[0] * len(files), ignored=total - len(files))
    if labels and all("/" in name for name in below):
        classes = sorted({name.partition("/")[0] for name in below})
        if len(classes) > 1:
            number = {name: i for i, name in enumerate(classes)}
            found.classes, found.labels = classes, [number[name.partition("/")[0]] for name in below]

    found.splits = {name: [i for i, split in enumerate(split_of) if split == name] for name in SPLITS}
    place = [_hash_fraction(file) for file in files]
    edge = 0.0
    missing = [
        (name, share) for name, share in (("test", fractions[1]), ("val", fractions[0])) if not found.splits[name]
    ]
    for later, (name, share) in zip(reversed(range(len(missing))), missing, strict=True):
        train = sorted(found.splits["train"], key=lambda i: (place[i] < edge, place[i]))
        least = MIN_HELD_OUT if len(train) >= MIN_HELD_OUT * (later + 2) else 1
        due = sum(edge <= place[i] < edge + share for i in train)
        taken = train[: min(max(due, least), len(train) - least * (later + 1))]  # the rest needs some too
        found.splits[name] = sorted(taken)
        found.splits["train"] = sorted(set(train) - set(taken))
        edge += share
    if not all(found.splits.values()):
        raise DataError(f"data.path={root}: too few images to train on after the split. Add some.")
    return found


def _hash_fraction(file: str) -> float:
    """Hash a name to a number in [0, 1)."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(file), digest_size=6).digest(), "big") / 2**48
