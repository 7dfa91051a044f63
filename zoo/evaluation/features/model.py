"""Features of a trained model of the zoo that embeds data, such as `simclr` or `mae`."""

from pathlib import Path

import torch
from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.spec import DataSpec
from zoo.evaluation.features.base import Features
from zoo.interop.loading import load
from zoo.io.atomic import sha256
from zoo.models.abilities import SupportsDataEmbedding
from zoo.models.ability import supports
from zoo.runs.checkpoint import find_checkpoint


class ModelFeatures(Features):
    """The vectors that a model gives to data. Metrics are named after the model and its data.

    Args:
        spec: of the data.
        run: run folder or checkpoint of the model.

    Raises:
        ZooError: no run, a model that does not embed data, or one of other data.
    """

    def __init__(self, spec: DataSpec, run: str | Path | None) -> None:
        if run is None:
            raise ZooError("features=model: needs a trained model that embeds data. Name its run by --weights RUN.")
        self.model = load(run)
        name = self.model.registered_name
        if not supports(self.model, SupportsDataEmbedding):
            raise ZooError(f"weights={run}: {name} does not embed data. Train a model that does, such as simclr.")
        if self.model.spec.shape != spec.shape:
            raise ZooError(f"weights={run}: trained on {self.model.spec}, not on {spec}. Use others.")
        with torch.no_grad():
            dim = self.model.embed_data(torch.zeros(1, *spec.shape)).shape[1]
        super().__init__(f"{name}_{self.model.spec.name}", dim, spec.shape, sha256(find_checkpoint(run)))

    def to(self, device: str | torch.device) -> "ModelFeatures":
        """Move the model."""
        self.model.to(device)
        return self

    def extract(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, dim)."""
        found: Tensor = self.model.embed_data(x.to(self.model.device))
        return found
