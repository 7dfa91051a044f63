"""Read untrusted YAML within limits of size and depth. Imports no Hydra."""

from pathlib import Path
from typing import Any

import yaml

from zoo.core.errors import CheckpointError, ZooError

MAX_YAML_BYTES = 2**18  # bytes of a file; the largest of the zoo has 2,000
NODES = 20_000  # of a file with all aliases written out
DEEPEST = 40  # nested lists and mappings


def read_yaml(file: Path) -> Any:
    """Plain values of an untrusted YAML file.

    Raises:
        CheckpointError: too large, too deep, or not YAML; nothing was built from it.
    """
    text = read_text(file)
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise not_yaml(file, error) from error


def not_yaml(file: Path, error: Exception) -> ZooError:
    """The error for a file that a YAML reader refused."""
    return CheckpointError(f"{file} is not YAML of plain values ({' '.join(str(error).split())}).")


def read_text(file: Path) -> str:
    """Text of an untrusted YAML file, within the limits above when all aliases are written out.

    Raises:
        CheckpointError: too large, too deep, or not YAML.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({(error.strerror or str(error)).lower()}).") from error
    if len(raw) > MAX_YAML_BYTES:
        raise CheckpointError(f"{file} has more than {MAX_YAML_BYTES:,} bytes, which no recipe needs.")
    try:
        text = raw.decode()
        _refuse_bombs(text, file)
    except (yaml.YAMLError, ValueError) as error:
        raise not_yaml(file, error) from error
    return text


def _refuse_bombs(text: str, file: Path) -> None:
    """Count nodes as if every alias were written out, without building any."""
    sizes: dict[str | None, int] = {}
    open_: list[tuple[str | None, int]] = [(None, 0)]  # anchor and nodes of each collection that is not closed yet
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        anchor, n = open_.pop()
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise CheckpointError(f"{file} holds an alias *{event.anchor} to what is around it or nowhere.")
            open_.append((anchor, n + sizes[event.anchor]))
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor] = 1 + len(event.value) // 64
            open_.append((anchor, n + sizes[event.anchor]))
        elif isinstance(event, yaml.CollectionStartEvent):
            sizes.pop(event.anchor, None)
            open_ += [(anchor, n), (event.anchor, 1)]
        elif isinstance(event, yaml.CollectionEndEvent):
            sizes[anchor] = n
            outer, before = open_.pop()
            open_.append((outer, before + n))
        else:
            open_.append((anchor, n))
        if open_[-1][1] > NODES or len(open_) > DEEPEST:
            raise CheckpointError(
                f"{file} unfolds to more than {NODES:,} values or {DEEPEST} levels, which no recipe needs."
            )
