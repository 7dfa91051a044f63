"""SimCLR: vectors of pictures, learned without labels."""

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.registry import register
from zoo.core.signature import Component, Positive, PositiveInt
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.models.embedding.gather import gather_rows
from zoo.models.results import Visual
from zoo.nn.augmentations.gan import Augmentation
from zoo.nn.losses.contrastive import nt_xent
from zoo.nn.networks.components import Encoder
from zoo.nn.optim.components import Optimizer

SHOWN = 16  # pictures whose views are shown


@register("model", "simclr")
class SimCLR(Model):
    """Image encoder whose vectors are near for two random views of a picture (Chen et al. 2020, arXiv:2002.05709).

    Each picture of a batch is changed twice at random. A head of two layers projects the features of both views, and
    each view must find the other among all views of the batch. The head is left out afterwards: `embed_data` gives the
    features before it. `loss` is in nats per view; labels are not used.

    Args:
        spec: images.
        dim: of the features.
        projection_dim: of the head's output.
        temperature: that cosine similarities are divided by.
        augmentation: random changes that make the views; what they change, the features ignore.
        optimizer: with its learning rate and schedule.
        encoder: of pictures.
    """

    paper = "Chen et al. 2020 (arXiv:2002.05709)"
    accepts = (Image,)

    def __init__(
        self,
        spec: DataSpec,
        *,
        dim: PositiveInt = 128,
        projection_dim: PositiveInt = 64,
        temperature: Positive = 0.2,
        augmentation: Annotated[str | dict[str, Any], Component("augmentation")] = "views",
        optimizer: Optimizer = "adamw",
        encoder: Encoder = "auto",
    ) -> None:
        super().__init__(spec)
        self.augment: Augmentation = self.build_component("augmentation", "augmentation", spec)
        self.encoder = self.build_component("encoder", "encoder", spec.shape, dim)
        self.projection = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, projection_dim, bias=False))

    def embed_data(self, x: Tensor) -> Tensor:
        """Pictures (B, *shape) -> features (B, dim)."""
        features: Tensor = self.encoder(x)
        return features

    def view(self, x: Tensor) -> Tensor:
        """A random view of each picture (B, *shape), in [0, 1]."""
        return (self.augment(2 * x - 1).clamp(-1, 1) + 1) / 2

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The loss, and the share of pictures whose other view is nearest."""
        n = len(batch.x)
        both = self.projection(F.relu(self.embed_data(torch.cat([self.view(batch.x), self.view(batch.x)]))))
        first, second = (gather_rows(self, view) for view in both.split(n))  # each (B, projection_dim)
        with torch.autocast(both.device.type, enabled=False):
            first, second = first.float(), second.float()
            loss = nt_xent(first, second, self.hparams["temperature"])
            best = (F.normalize(first.detach(), dim=1) @ F.normalize(second.detach(), dim=1).T).argmax(1)
        return {"loss": loss, "view_found": (best == torch.arange(len(best), device=best.device)).float().mean()}

    def charts(self) -> dict[str, list[str]]:
        """Loss, and views found."""
        return {"loss": ["train/loss", "val/loss"], "views found": ["train/view_found", "val/view_found"]}

    def hidden_layers(self) -> list[nn.Module]:
        """The encoder."""
        return [self.encoder]

    def visuals(self, batch: Batch) -> Iterator[Visual]:
        """Yield held-out pictures, and two views of each below."""
        x = batch.x[:SHOWN]
        with torch.no_grad():
            rows = torch.cat([x, self.view(x), self.view(x)])
        yield Visual("views", self.spec.x, rows, len(x), ("data", "view 1", "view 2"))
