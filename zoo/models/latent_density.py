"""A density of latents that is fitted during training, for samples of models whose latents do not follow a prior."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.space import Space
from zoo.core.spaces import Vector
from zoo.data.batch import Batch
from zoo.models.baselines.base import gather

FIT_ON = 10_000  # training samples: enough for a density of a few dozen dimensions


class LatentDensity(L.LightningModule):
    """Fits `density` to the latents of training data (ex-post density estimation, Ghosh et al. 2019, 1903.12436).

    This happens before every validation and at the end of training; checkpoints contain it. A subclass sets `density`
    and writes `latents_to_fit`.
    """

    density: Any  # a module with `fit(latents)` and `fitted`, such as `GaussianMixture`; None switches it off
    latents_to_fit: Callable[[Batch], Tensor]  # a batch -> its latents (B, D)
    latent_dim: int
    encode: Callable[..., Tensor]
    decode: Callable[..., Tensor]
    step: int
    total_steps: int
    _fitted_at: int = -1

    # -- a first stage, unless a subclass has another latent -----------------------------------------------------------

    def latent_space(self) -> Space:
        """Vectors of latents."""
        return Vector(self.latent_dim)

    def to_latent(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Data (B, *shape) -> latents (B, latent_dim)."""
        return self.encode(x, y)

    def from_latent(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, latent_dim) -> data (B, *shape)."""
        return self.decode(z, y)

    # -- training ------------------------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        """Fit the density, so that samples and checkpoints match the current weights."""
        self._fit_density()

    def on_train_epoch_end(self) -> None:
        """Fit it after the last batch: this is the last hook before checkpoints and images are made."""
        if self.step + 1 >= self.total_steps:
            self._fit_density()

    def on_train_end(self) -> None:
        """Fit it after an early stop."""
        self._fit_density()

    def _fit_density(self) -> None:
        if self.density is None or self.trainer.train_dataloader is None or self._fitted_at == self.step:
            return  # not training, or the weights have not moved
        self._fitted_at = self.step
        if self.trainer.is_global_zero:
            latents = self._training_latents()
            if not latents.isfinite().all():
                raise ZooError("The latents are not finite: training has diverged. Lower model.optimizer.lr.")
            self.density.fit(latents)
        state = {name: buffer.cpu() for name, buffer in self.density.state_dict().items()}
        self.density.load_state_dict(self.trainer.strategy.broadcast(state))

    @torch.no_grad()
    def _training_latents(self) -> Tensor:
        """Latents of about `FIT_ON` samples of the training loader of this process."""
        training = self.training
        self.eval()
        loader: Any = self.trainer.train_dataloader
        latents = gather(loader, self._latents_on_cpu, FIT_ON)
        self.train(training)
        return latents

    def _latents_on_cpu(self, batch: Batch) -> Tensor:
        """Latents of a batch; codes stay integers."""
        latents = self.latents_to_fit(batch.to(self.device)).cpu()
        return latents.float() if latents.is_floating_point() else latents

    def fitted_density(self) -> Any:
        """The density.

        Raises:
            ZooError: it is not fitted yet.
        """
        if self.density is None or not self.density.fitted:
            name = getattr(self, "registered_name", type(self).__name__)
            raise ZooError(
                f"model={name}: cannot sample yet, because training fits the density of its latents. "
                f"Train it (python train.py model={name}), or load the checkpoint of a run."
            )
        return self.density
