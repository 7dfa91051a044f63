"""Vectors of texts and data from a trained model: the abilities `embed`, `embed_data` and `latents`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import ConfigError
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.hub.pretrained import resolve
from zoo.interop.loading import load, weights_files
from zoo.io.atomic import sha256
from zoo.models.abilities import SupportsDataEmbedding, SupportsEmbedding, SupportsLatents
from zoo.models.ability import supports
from zoo.runs.checkpoint import find_checkpoint

BATCH = 64  # items that are embedded together


class Embedder:
    """A trained model that turns texts or data into vectors.

    Args:
        run: a run folder, a checkpoint, a folder in the Hugging Face format, or a pretrained or published model.
        device: cpu, cuda ...

    Raises:
        ConfigError: the model neither embeds texts nor encodes data.
    """

    def __init__(self, run: str | Path, device: str = "cpu") -> None:
        self.run, self.model = resolve(run), load(run, device)
        if not any(supports(self.model, one) for one in (SupportsEmbedding, SupportsDataEmbedding, SupportsLatents)):
            raise ConfigError(
                f"{run}: {self.model.registered_name} gives no vectors. Use a model that embeds or reconstructs."
            )

    @property
    def about(self) -> dict[str, str]:
        """Facts that identify the model: vectors of two models are never compared."""
        weights = weights_files(self.run)
        path = weights[0] if weights else find_checkpoint(self.run)
        return {"run": str(self.run.resolve()), "sha256": sha256(path), "model": self.model.registered_name}

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts -> vectors (N, D).

        Raises:
            ConfigError: the model does not embed texts.
        """
        if not supports(self.model, SupportsEmbedding):
            raise ConfigError(f"{self.run}: {self.model.registered_name} does not embed texts. Use --image or --id.")
        parts = [self.model.embed(list(texts[i : i + BATCH])) for i in range(0, len(texts), BATCH)]
        return torch.cat(parts).float().cpu()

    @torch.no_grad()
    def data(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data (N, *shape) with labels (N,) -> vectors (N, D).

        Raises:
            ConfigError: the model does not encode data.
        """
        model: Any = self.model
        if supports(model, SupportsDataEmbedding):
            return model.embed_data(x.to(model.device)).float().cpu()
        if not supports(model, SupportsLatents):
            raise ConfigError(f"{self.run}: {model.registered_name} does not encode data. Search for a text.")
        labels = None if y is None else y.to(model.device)
        return model.encode(x.to(model.device), labels).float().cpu()


def batches_of(data: DataModule, split: str) -> Iterator[Batch]:
    """All samples of the split train, val or test, in order."""
    part = getattr(data, split)
    for rows in torch.arange(len(part[0])).split(BATCH):
        yield Batch.of(data.fetch(part, rows, make_generator(0), train=False))
