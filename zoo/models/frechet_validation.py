"""Validation of models without a likelihood: a Frechet distance between held-out data and samples."""

from collections.abc import Callable
from typing import cast

import pytorch_lightning as L
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from zoo.data.batch import Batch
from zoo.metrics.frechet import frechet, moments, random_projection
from zoo.metrics.prdc import NEIGHBOURS, prdc

FD_SAMPLES = 2000  # generated samples in the Frechet distance, and the most held-out ones


class FrechetValidation(L.LightningModule):
    """Logs "val/fd" for a model that decodes noise. A subclass creates `held_out`, the samples of this process."""

    monitor: str  # "val/uncovered" measures coverage too
    latent_dim: int
    held_out: list[Tensor]  # validation samples of this process, projected
    randn: Callable[..., Tensor]
    resolve_labels: Callable[[int, Tensor | None, torch.Generator | None], Tensor]
    decode: Callable[[Tensor, Tensor], Tensor]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect samples for `on_validation_epoch_end`."""
        share = len(range(self.global_rank, FD_SAMPLES, self.trainer.world_size))
        room = share - sum(map(len, self.held_out))
        self.held_out.append(random_projection(batch.x[: max(room, 0)]).cpu())

    def on_validation_epoch_end(self) -> None:
        """Log "val/fd", the Frechet distance of pixels between held-out data and `FD_SAMPLES` samples.

        For vectors, also log "val/uncovered", the share of held-out points without a sample near (1 - coverage).
        It chooses best.ckpt, because means and covariances of few values match long before their distribution does.
        Two held-out samples are necessary. Processes share one noise stream, so the metrics do not depend on their
        number.
        """
        real, self.held_out = torch.cat(self.held_out), []
        generator = torch.Generator().manual_seed(0)  # the same noise at every validation
        mine, fake = slice(self.global_rank, None, self.trainer.world_size), []
        labels = self.resolve_labels(FD_SAMPLES, None, generator)
        noise = self.randn(FD_SAMPLES, self.latent_dim, generator=generator)  # fewer have a larger bias
        for z, y in zip(noise[mine].split(250), labels[mine].split(250), strict=True):
            fake.append(random_projection(self.decode(z, y)).cpu())
        both = torch.stack([moments(real), moments(torch.cat(fake))])
        if self.trainer.world_size > 1:
            both = cast(Tensor, self.trainer.strategy.reduce(both.to(self.device), reduce_op="sum")).cpu()
        if int(both[0][0, 0]) < 2 * self.trainer.world_size:
            rank_zero_warn(f"{self.monitor} is not measured: fewer than 2 validation samples in each process.")
            return
        self.log("val/fd", frechet(both[0], both[1]).float(), sync_dist=True)
        if self.monitor == "val/uncovered":
            covered = prdc(real, torch.cat(fake), min(NEIGHBOURS, len(real) - 1))["coverage"]
            self.log("val/uncovered", 1 - covered, sync_dist=True)
