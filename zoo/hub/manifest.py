"""Manifest of a published model: its facts, metrics, and the digest of each file. Does not import torch.

The identifier of a version is the SHA-256 of its manifest, which lists the SHA-256 of every other file. So a change of
any byte of any file changes the identifier.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from zoo.core.errors import CheckpointError
from zoo.io.atomic import sha256

SCHEMA = 1
FILE = "manifest.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
PICTURE, TEXTS = "samples.png", "samples.txt"
MAX_BYTES = 2**20  # of a manifest
MAX_FILES = 100
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")  # no folders, so that nothing is written elsewhere
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")  # of a model or a tag
DIGEST = re.compile(r"[0-9a-f]{64}")
SHORT = 12  # characters of an identifier in tables


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Facts about one version of a published model, as plain values.

    Args:
        name: of the model where it was published first.
        model: registered name of the model.
        data: registered name of the data.
        space: name of the space of the samples.
        summary: one line.
        licence: of the training data.
        abilities: of the model.
        command: that trained it; empty if it was trained from Python.
        seed: of the training.
        commit: of the source; empty if it was not a checkout.
        versions: packages with their versions.
        hardware: of the training.
        batches: of the training.
        parameters: trainable numbers.
        dtype: of the weights in the file, such as "float32".
        init_from: the model that the training began with; empty if none.
        protocol: of the metrics.
        metrics: name -> value, better, error, real_data_reference, note; see `zoo.evaluation.context.Metric`.
        files: name -> {"sha256", "size"} of each file.
        source: address of the files, where they are not beside the manifest.
    """

    name: str
    model: str
    data: str
    space: str = ""
    summary: str = ""
    licence: str = ""
    abilities: tuple[str, ...] = ()
    command: str = ""
    seed: int = 0
    commit: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: str = ""
    batches: int = 0
    parameters: int = 0
    dtype: str = ""
    init_from: str = ""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: str = ""

    def to_bytes(self) -> bytes:
        """JSON in one fixed form: equal manifests have equal bytes."""
        return (json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, sort_keys=True) + "\n").encode()

    @property
    def version(self) -> str:
        """Identifier: 64 hexadecimal digits. It does not depend on the place of the files."""
        return hashlib.sha256(replace(self, source="").to_bytes()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry["size"] for entry in self.files.values())


def parse(content: bytes, place: str) -> Manifest:
    """Read an untrusted manifest. A new key needs a new `SCHEMA`, since older versions could not repeat its bytes.

    Raises:
        CheckpointError: not a manifest, of a newer schema, or with names of files outside its folder.
    """
    problem = f"{place}: not a model that the zoo published"
    remedy = "Choose an address that `zoo push` has written."
    try:
        values = json.loads(content) if len(content) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("schema"), int):
        raise CheckpointError(f"{problem} ({FILE} is not one of its manifests). {remedy}")
    if values["schema"] > SCHEMA:
        raise CheckpointError(f"{place}: of schema {values['schema']}, newer than {SCHEMA}. Update generative-zoo.")
    known = {each.name: values.pop(each.name) for each in fields(Manifest) if each.name in values}
    texts = ("name", "model", "data", "space", "summary", "licence", "command", "commit", "hardware", "dtype", "source")
    good = {"name", "model", "data", "files"} <= known.keys() and values.keys() == {"schema"}
    good = good and all(isinstance(known.get(key, ""), str) for key in (*texts, "init_from"))
    good = good and all(type(known.get(key, 0)) is int for key in ("seed", "batches", "parameters"))
    good = good and all(isinstance(known.get(key, {}), dict) for key in ("versions", "protocol", "metrics", "files"))
    good = good and all(isinstance(metric, dict) for metric in known.get("metrics", {}).values())
    abilities = known.get("abilities", [])
    good = good and isinstance(abilities, list) and all(isinstance(label, str) for label in abilities)
    good = good and NAME.fullmatch(known["name"]) is not None
    if not good or not 0 < len(known["files"]) <= MAX_FILES or WEIGHTS not in known["files"]:
        raise CheckpointError(f"{problem} ({FILE} is damaged). {remedy}")
    for name, entry in known["files"].items():
        if not FILE_NAME.fullmatch(name) or name == FILE:
            raise CheckpointError(f"{problem} (it lists the file {name!r}). {remedy}")
        sound = isinstance(entry, dict) and type(entry.get("size")) is int and entry["size"] >= 0
        if not sound or not isinstance(entry.get("sha256"), str) or not DIGEST.fullmatch(entry["sha256"]):
            raise CheckpointError(f"{problem} ({name} does not have a digest). {remedy}")
    return Manifest(**(known | {"abilities": tuple(abilities)}))


def parse_version(content: bytes, version: str, place: str) -> Manifest:
    """Read the manifest of a version, which is the SHA-256 of its bytes.

    Raises:
        CheckpointError: it was changed, or is not one.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != version and len(content) <= MAX_BYTES:
        parse(content, place)  # the message for other files
        raise CheckpointError(
            f"{place}: the {FILE} of version {version[:SHORT]} was changed (SHA-256 {found[:SHORT]}). Restore it from "
            f"a backup, or push the model again to another address."
        )
    return parse(content, place)


def read(folder: Path) -> Manifest:
    """Read the manifest of a folder.

    Raises:
        CheckpointError: there is none.
    """
    file = folder / FILE
    if not file.is_file() or file.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{folder}: {FILE} is missing or too large. Choose a folder that `zoo pull` has written.")
    return parse(file.read_bytes(), str(folder))


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Name, SHA-256 and size of each file in a folder but the manifest."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != FILE)
    return {file.name: {"sha256": sha256(file), "size": file.stat().st_size} for file in files}


def verify(manifest: Manifest, folder: Path) -> None:
    """Compare the files of a folder with their digests.

    Raises:
        CheckpointError: a file is missing or was changed; the message names it.
    """
    for name, entry in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing, but its manifest lists it. Pull the model again.")
        if file.stat().st_size != entry["size"] or (found := sha256(file)) != entry["sha256"]:
            got = f"{file.stat().st_size:,} bytes" if file.stat().st_size != entry["size"] else found[:SHORT]
            raise CheckpointError(
                f"{file}: has SHA-256 or size {got} instead of {entry['sha256'][:SHORT]} ({entry['size']:,} bytes). "
                f"It was changed or is damaged: pull the model again."
            )
