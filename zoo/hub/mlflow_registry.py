"""A registered model of MLflow: `mlflow://NAME`, on the server that MLFLOW_TRACKING_URI names.

Each version is a version of the registered model, with the tag `zoo.version`. Its files are artifacts of a run. Tags
are aliases. MLflow reserves the alias `latest`, and `zoo-latest` takes its place.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.core.errors import CheckpointError
from zoo.hub import manifest
from zoo.hub.address import LATEST, MLFLOW
from zoo.hub.manifest import SHORT, Manifest
from zoo.hub.store import first_line, is_foreign

VERSION = "zoo.version"  # tag of a version: its identifier
CURRENT = "zoo-latest"  # alias
EXPERIMENT = "zoo"  # of the runs that hold the files
FOLDER = "model"  # of the artifacts


class MLflowRepository:
    """A registered model.

    Args:
        address: `mlflow://NAME`.

    Raises:
        CheckpointError: mlflow is not installed, or the address has more parts.
    """

    def __init__(self, address: str) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise CheckpointError(f"{address}: needs mlflow. Install generative-zoo[mlflow].") from None
        self.address, self.name = address, address.removeprefix(MLFLOW).strip("/")
        if "/" in self.name:
            raise CheckpointError(f"{address}: not a registered model. Write mlflow://NAME.")
        logging.getLogger("alembic").setLevel(logging.WARNING)  # one line for each table
        with self._reported():
            self.client: Any = MlflowClient()

    def versions(self) -> dict[str, Manifest]:
        """Identifier -> manifest of each version."""
        with self._reported():
            return {version: self._manifest(version, one.version) for version, one in self._registered().items()}

    def tags(self) -> dict[str, str]:
        """Tag -> identifier of its version."""
        with self._reported():
            known = {str(one.version): version for version, one in self._registered().items()}
            aliases = self.client.get_registered_model(self.name).aliases if known else {}
        named = {LATEST if alias == CURRENT else alias: str(number) for alias, number in aliases.items()}
        return {tag: known[number] for tag, number in named.items() if number in known}

    def push(self, folder: Path, found: Manifest) -> None:
        """Add a version: its files, then the entry of the registry, then the alias."""
        with self._reported():
            if found.version not in self._registered():
                if not self._exists():
                    self.client.create_registered_model(self.name)
                experiment = self.client.get_experiment_by_name(EXPERIMENT)
                where = experiment.experiment_id if experiment else self.client.create_experiment(EXPERIMENT)
                run = self.client.create_run(where, run_name=f"{self.name}-{found.version[:SHORT]}")
                for name in (*found.files, manifest.FILE):
                    self.client.log_artifact(run.info.run_id, str(folder / name), FOLDER)
                for name, metric in found.metrics.items():
                    self.client.log_metric(run.info.run_id, allowed(name), float(metric["value"]))
                self.client.set_terminated(run.info.run_id)
                self.client.create_model_version(
                    self.name,
                    source=f"{run.info.artifact_uri}/{FOLDER}",
                    run_id=run.info.run_id,
                    tags={VERSION: found.version},
                    description=found.summary,
                )
            self.tag(LATEST, found.version)

    def tag(self, tag: str, version: str) -> None:
        """Move a tag to a version."""
        with self._reported():
            alias = CURRENT if tag == LATEST else tag
            self.client.set_registered_model_alias(self.name, alias, self._registered()[version].version)

    def fetch(self, version: str, folder: Path) -> Manifest:
        """Copy a version into an empty folder."""
        with self._reported(), tempfile.TemporaryDirectory(prefix="zoo-mlflow-") as place:
            number = self._registered()[version].version
            found = self._manifest(version, number)
            for name in found.files:
                self._download(name, number, place).replace(folder / name)
            (folder / manifest.FILE).write_bytes(found.to_bytes())
            return found

    def _exists(self) -> bool:
        return any(one.name == self.name for one in self.client.search_registered_models(f"name='{self.name}'"))

    def _registered(self) -> dict[str, Any]:
        """Identifier -> entry of each version that the zoo registered."""
        found = self.client.search_model_versions(f"name='{self.name}'")
        return {one.tags[VERSION]: one for one in found if VERSION in one.tags}

    def _manifest(self, version: str, number: int | str) -> Manifest:
        with tempfile.TemporaryDirectory(prefix="zoo-mlflow-") as place:
            file = self._download(manifest.FILE, number, place)
            return manifest.parse_version(file.read_bytes(), version, self.address)

    def _download(self, name: str, number: int | str, place: str) -> Path:
        from mlflow.artifacts import download_artifacts

        source = self.client.get_model_version_download_uri(self.name, str(number))
        return Path(download_artifacts(f"{source}/{name}", dst_path=place))

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Report failures of the server in one sentence.

        Raises:
            CheckpointError: no server, no permission, or a name that MLflow does not allow.
        """
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:  # MLflow's own, those of its database, and those of connections
            if not isinstance(error, OSError) and not is_foreign(error):
                raise
            raise CheckpointError(
                f"{self.address}: {first_line(error)}. Check MLFLOW_TRACKING_URI and your credentials."
            ) from None


def allowed(name: str) -> str:
    """The name of a metric, in the characters that MLflow allows."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)
