"""Addresses of published models: `STORE/NAME@VERSION`. Does not import torch."""

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.core.errors import CheckpointError
from zoo.hub.manifest import NAME

if TYPE_CHECKING:
    from zoo.hub.store import Repository

LATEST = "latest"  # the tag that every push moves
HUGGING_FACE = "hf://"
MLFLOW = "mlflow://"


def is_repository(path: Path) -> bool:
    """Whether a folder is that of a model in a local store."""
    return (path / "versions").is_dir()


def split_version(address: str) -> tuple[str, str]:
    """Split `ADDRESS@VERSION`; the version is "latest" by default."""
    front, slash, last = address.rstrip("/").rpartition("/")
    name, at, version = last.partition("@")
    return f"{front}{slash}{name}", version if at else LATEST


def name_of(address: str) -> str:
    """Name of the model at an address: its last part.

    Raises:
        CheckpointError: the last part is not a name.
    """
    name = address.rstrip("/").rpartition("/")[2]
    if not NAME.fullmatch(name):
        raise CheckpointError(f"{address}: does not end in a name. Write STORE/NAME, with letters, digits and dashes.")
    return name


def open_repository(address: str) -> "Repository":
    """Repository of a model: of Hugging Face's hub, of MLflow's registry, in a folder, or at a URL of fsspec.

    Raises:
        CheckpointError: an unknown protocol, a missing package, or an address without a name.
    """
    from zoo.hub.huggingface import HubRepository
    from zoo.hub.mlflow_registry import MLflowRepository
    from zoo.hub.store import FolderRepository

    name_of(address)
    if address.startswith(HUGGING_FACE):
        return HubRepository(address)
    return MLflowRepository(address) if address.startswith(MLFLOW) else FolderRepository(address)
