"""Read untrusted YAML within limits of size and depth. Does not import Hydra."""

from pathlib import Path
from typing import Any

import yaml

from zoo.core.errors import CheckpointError, ZooError

MAX_YAML_BYTES = 2**18  # per file; the largest recipe has 2,000
MAX_NODES = 20_000  # per file, with all aliases expanded
MAX_DEPTH = 40  # of nested lists and mappings


def read_yaml(file: Path) -> Any:
    """Parse an untrusted YAML file to plain values.

    Raises:
        CheckpointError: too large, too deep, or not YAML; checked before anything is built.
    """
    text = read_text(file)
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise yaml_error(file, error) from None


def yaml_error(file: Path, error: Exception) -> ZooError:
    """Return the error for a file that a YAML reader rejected."""
    return CheckpointError(f"{file}: not YAML of plain values ({' '.join(str(error).split())}). Correct the file.")


def read_text(file: Path) -> str:
    """Read an untrusted YAML file, within the limits above after expanding all aliases.

    Raises:
        CheckpointError: too large, too deep, or not YAML.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        raise CheckpointError(
            f"{file}: cannot be read ({(error.strerror or str(error)).lower()}). Check its permissions."
        ) from None
    if len(raw) > MAX_YAML_BYTES:
        raise CheckpointError(f"{file}: has more than {MAX_YAML_BYTES:,} bytes. Split it.")
    try:
        text = raw.decode()
        _check_expanded_size(text, file)
    except (yaml.YAMLError, ValueError) as error:
        raise yaml_error(file, error) from None
    return text


def _check_expanded_size(text: str, file: Path) -> None:
    """Count nodes as if every alias were expanded, without building any."""
    sizes: dict[str | None, int] = {}
    open_: list[tuple[str | None, int]] = [(None, 0)]  # anchor and node count of each open collection
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        anchor, n = open_.pop()
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise CheckpointError(f"{file}: alias *{event.anchor} is recursive or undefined. Write its value out.")
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
        if open_[-1][1] > MAX_NODES or len(open_) > MAX_DEPTH:
            raise CheckpointError(f"{file}: expands to more than {MAX_NODES:,} values or {MAX_DEPTH} levels. Split it.")
