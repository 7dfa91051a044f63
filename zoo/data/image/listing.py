"""List the images of a folder, and assign them to splits."""

import filecmp
import hashlib
import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from zoo.core.errors import DataError
from zoo.data.image import decode
from zoo.data.listing import Listing, list_folder, log_rank0

log = logging.getLogger(__name__)
MAX_COMPARED = 2_000  # held-out images of each split that are compared with the training images
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


def list_files(root: Path) -> Listing:
    """List the images below a folder as sorted relative paths, and count the other files by suffix.

    Hidden and system files and folders are left out; each link is followed once.

    Raises:
        DataError: no such folder, or it cannot be listed.
    """
    if not root.is_dir():
        reason = "a file. Unpack it and give the folder" if root.exists() else "not found. Give a folder of images"
        raise DataError(f"data.path={root}: {reason}.")
    found = list_folder(root, lambda file: os.path.splitext(file)[1].lower() in decode.SUFFIXES)
    found.files.sort()
    return found


def assign_splits(
    root: Path, files: list[str], others: Counter[str], labels: bool, fractions: tuple[float, float]
) -> FolderListing:
    """Derive splits and classes from the folders of the files; a folder that contains all of them has no meaning.

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
    shared = common_folder(files)
    inner = [file.removeprefix(shared) for file in files]
    tops = {file.partition("/")[0] for file in inner if "/" in file}
    known = {top: split for top in tops for split, names in SPLITS.items() if top.lower() in names}
    flat = any("/" not in file for file in inner)
    laid_out = "train" in known.values() and (len(set(known.values())) > 1 or (len(known) == len(tops) and not flat))
    total = len(files)
    if laid_out:
        inner = [file for file in inner if file.partition("/")[0] in known and "/" in file]
        files = [f"{shared}{file}" for file in inner]
    split_of = [known[file.partition("/")[0]] if laid_out else "train" for file in inner]
    below = [file.partition("/")[2] if laid_out else file for file in inner]

    found = FolderListing(files, labels=[0] * len(files), ignored=total - len(files))
    if labels and all("/" in name for name in below):
        classes = sorted({name.partition("/")[0] for name in below})
        if len(classes) > 1:
            number = {name: i for i, name in enumerate(classes)}
            found.classes, found.labels = classes, [number[name.partition("/")[0]] for name in below]
    elif labels and len({name.partition("/")[0] for name in below if "/" in name}) > 1:
        loose = [name for name in below if "/" not in name]
        log_rank0(
            log.warning,
            f"data.path={root}: no labels, because {len(loose):,} images such as {loose[0]} are beside the folders of "
            f"the others. Move them into a folder to have one class per folder.",
        )

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


def common_folder(files: list[str]) -> str:
    """Path of the folders that contain all files, such as `photos/` of an archive that was unpacked in a folder.

    A folder whose name is that of a split is not part of it.
    """
    folders = [file.split("/")[:-1] for file in files]
    names = {name for names in SPLITS.values() for name in names}
    both = zip(min(folders), max(folders), strict=False)  # what these two share, all share
    kept = takewhile(lambda pair: pair[0] == pair[1] and pair[0].lower() not in names, both)
    return "".join(f"{part}/" for part, _ in kept)


def copies(root: Path, files: list[str], train: list[int], held: list[int]) -> list[tuple[str, str]]:
    """Pair held-out files with a training file of the same bytes; of many, `MAX_COMPARED` are compared."""
    known: dict[tuple[int, bytes], str] = {}
    compared = held[:: -(-len(held) // MAX_COMPARED)] if held else []
    sizes = {os.path.getsize(root / files[i]) for i in compared}
    for i in train:
        path = root / files[i]
        if (size := os.path.getsize(path)) in sizes:
            known.setdefault((size, middle(path, size)), files[i])
    pairs = []
    for i in compared:
        path = root / files[i]
        same = known.get((size := os.path.getsize(path), middle(path, size)))
        if same and filecmp.cmp(path, root / same, shallow=False):
            pairs.append((files[i], same))
    return pairs


def middle(path: Path, size: int) -> bytes:
    """Read up to 4 kB from the middle of a file, and hash them."""
    with path.open("rb") as file:
        file.seek(max(size // 2 - 2048, 0))
        return hashlib.blake2b(file.read(4096), digest_size=16).digest()


def _hash_fraction(file: str) -> float:
    """Hash a name to a number in [0, 1)."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(file), digest_size=6).digest(), "big") / 2**48
