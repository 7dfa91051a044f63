"""Base classes of models that are fitted once to the training data, without gradients."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import ZooError
from zoo.core.spaces import Image
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.models.abilities import ExactLikelihood
from zoo.models.base import Model

FIT_ON = 60_000  # most training samples


class Fitted(Model):
    """A model that is fitted to the training data when training starts, before the first batch.

    A subclass writes `fit`, and stores the result in buffers. Its docstring defines the distribution before fitting.
    Training then runs over the batches of the recipe without changing anything: validation, checkpoints and samples
    work as for any model. Buffers with data-dependent sizes take the sizes of a checkpoint.
    """

    fit_on: int = FIT_ON  # most training samples for `fit`; a random subset of larger data
    fitted: Tensor  # bool ()

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, data: Tensor) -> None:
        """Compute the buffers from the `statistics` of the training data, (N, ...) on the CPU."""
        raise NotImplementedError

    def statistics(self, batch: Batch) -> Tensor:
        """Compact input (B, ...) of `fit` for a batch."""
        return batch.x

    def on_train_start(self) -> None:
        """Fit, unless resumed from a fitted checkpoint."""
        if self.fitted:
            return
        whole = getattr(self.trainer.datamodule, "fitting_dataloader", None)  # type: ignore[attr-defined]
        loader = self.trainer.train_dataloader if whole is None else whole()
        self.fit(gather(loader, self.statistics, self.fit_on)[: self.fit_on])
        self.fitted.fill_(True)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Negative log-likelihood, nats per sample."""
        return {"loss": -self.log_prob(*batch).mean()}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss of the batch; there are no gradients."""
        with torch.no_grad():
            self.log_terms(self.loss(batch))

    def configure_optimizers(self) -> None:
        """No optimizer."""

    def modules_to_compile(self) -> list[torch.nn.Module]:
        """None: the model runs too rarely."""
        return []

    def resize_buffers_like(self, weights: Mapping[str, Tensor]) -> None:
        """Resize every buffer as in the weights."""
        resize(self, weights)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        resize(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def resize(module: torch.nn.Module, state_dict: Mapping[str, Any], prefix: str = "") -> None:
    """Resize the buffers of a module and its children to match a state dict."""
    for name, buffer in list(module.named_buffers()):
        saved = state_dict.get(prefix + name)
        if saved is not None and saved.shape != buffer.shape:
            path, _, last = name.rpartition(".")
            setattr(module.get_submodule(path), last, buffer.new_empty(saved.shape))


def gather(loader: Any, keep: Callable[[Batch], Tensor], enough: int) -> Tensor:
    """Concatenate `keep(batch)` over the batches of a loader, without disturbing a running training.

    Args:
        loader: that of the training, or another.
        keep: a batch -> (B, ...).
        enough: number of rows to stop at; the last batch may add a few more.
    """
    loader = copy.copy(loader)
    if hasattr(loader, "_iterator"):
        loader._iterator = None  # with persistent workers it is the training loop's, and must not restart
    found, seen = [], 0
    with torch.random.fork_rng(devices=[]):  # torch's loaders draw a seed
        for batch in loader:
            found.append(keep(Batch.of(batch)).cpu())  # the loader of a training may keep its data on the device
            seen += len(found[-1])
            if seen >= enough:
                break
    return torch.cat(found)


def check_dim(model: Fitted, limit: int) -> None:
    """Refuse data of too many values for a covariance matrix."""
    if model.spec.size > limit:
        raise ZooError(
            f"model={model.registered_name}: {model.spec} has {model.spec.size:,} values, and full covariances allow "
            f"{limit:,}. Choose smaller images (data.size=16), or model=pixel_mixture."
        )


class Density(ExactLikelihood, Fitted):
    """A density over R^D, fitted to samples (N, D); images are flattened."""

    likelihood_kind = "continuous"

    def statistics(self, batch: Batch) -> Tensor:
        """Vectors (B, D)."""
        return batch.x.flatten(1)

    def shaped(self, x: Tensor) -> Tensor:
        """Vectors (B, D) -> data (B, *shape), clamped to [0, 1] for images."""
        x = x.unflatten(1, self.spec.shape)
        return x.clamp(0, 1) if isinstance(self.spec.x, Image) else x
