"""Models that are fitted once to the training data and have nothing for gradients to move."""

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

FIT_ON = 60_000  # samples, at most


class Fitted(Model):
    """A model that reads the training data when training starts, and is finished before the first batch.

    A subclass writes `fit`, and keeps what it finds in buffers: they are all of its checkpoint. Before that it is in a
    state of ignorance that its docstring names, from which it samples and scores. Training goes over the batches
    that the recipe asks for (one) without changing anything, so that it validates, saves and draws as for any model.

    Buffers whose sizes depend on the data take the sizes that a checkpoint has.
    """

    fit_on: int = FIT_ON  # training samples that `fit` needs at most; drawn at random where there are more
    fitted: Tensor  # bool (), set by the training

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, data: Tensor) -> None:
        """Find the buffers from what `keep` kept of the training data, (N, ...) on the CPU."""
        raise NotImplementedError

    def keep(self, batch: Batch) -> Tensor:
        """What `fit` needs of a batch, in a compact form."""
        return batch.x

    def on_train_start(self) -> None:
        """Fit, unless a checkpoint that is resumed has it all."""
        if self.fitted:
            return
        whole = getattr(self.trainer.datamodule, "fitting_dataloader", None)  # type: ignore[attr-defined]
        loader = self.trainer.train_dataloader if whole is None else whole()
        self.fit(gather(loader, self.keep, self.fit_on)[: self.fit_on])
        self.fitted.fill_(True)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per sample: the negative of `log_prob`."""
        return {"loss": -self.log_prob(*batch).mean()}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Score the batch; there is nothing to descend."""
        with torch.no_grad():
            self.log_terms(self.loss(batch))

    def configure_optimizers(self) -> None:
        """None; Lightning counts batches all the same."""

    def modules_to_compile(self) -> list[torch.nn.Module]:
        """Nothing runs often enough to be worth it."""
        return []

    def resize_buffers_like(self, weights: Mapping[str, Tensor]) -> None:
        """Give every buffer the size that it has among the weights."""
        resize(self, weights)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        resize(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def resize(module: torch.nn.Module, state_dict: Mapping[str, Any], prefix: str = "") -> None:
    """Give the buffers of a module and of its children the sizes of those that are about to be loaded."""
    for name, buffer in list(module.named_buffers()):
        saved = state_dict.get(prefix + name)
        if saved is not None and saved.shape != buffer.shape:
            path, _, last = name.rpartition(".")
            setattr(module.get_submodule(path), last, buffer.new_empty(saved.shape))


def gather(loader: Any, keep: Callable[[Batch], Tensor], enough: int) -> Tensor:
    """What `keep` keeps of each batch, until there are enough rows, by a pass that does not disturb a training.

    Args:
        loader: the training's own, or another.
        keep: a batch -> (B, ...).
        enough: rows; the last batch may bring a few more.
    """
    loader = copy.copy(loader)
    if hasattr(loader, "_iterator"):
        loader._iterator = None  # the training loop's own, where workers persist: it must not be rewound
    found, seen = [], 0
    with torch.random.fork_rng(devices=[]):  # torch's loaders draw a seed when they start
        for batch in loader:
            found.append(keep(batch))
            seen += len(found[-1])
            if seen >= enough:
                break
    return torch.cat(found)


def check_dim(model: Fitted, limit: int) -> None:
    """Refuse data of too many values for a matrix of their square."""
    if model.spec.size > limit:
        raise ZooError(
            f"model {model.registered_name} has covariances of all pairs of values, and {model.spec} has "
            f"{model.spec.size:,} values where at most {limit:,} are affordable: choose smaller images (data.size=16), "
            f"or model=pixel_mixture."
        )


class Density(ExactLikelihood, Fitted):
    """A density over R^D that is fitted to samples (N, D); images are vectors of their values."""

    likelihood_kind = "continuous"

    def keep(self, batch: Batch) -> Tensor:
        """Vectors (B, D)."""
        return batch.x.flatten(1)

    def shaped(self, x: Tensor) -> Tensor:
        """Vectors (B, D) -> data (B, *shape), which for images lies in [0, 1]."""
        x = x.unflatten(1, self.spec.shape)
        return x.clamp(0, 1) if isinstance(self.spec.x, Image) else x
