"""Reference training loop without Lightning, the baseline of `zoo bench`."""

import contextlib
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as L
import torch
from torch import nn

from zoo.core.errors import ZooError
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.models.base import Model

AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16}


@runtime_checkable
class SupportsReferenceStep(Protocol):
    """A model with several optimizers and a training step without Lightning."""

    def reference_step(
        self, batch: Batch, number: int, autocast: Callable[[], Any], *optimizers: tuple[torch.optim.Optimizer, Any]
    ) -> None:
        """Train on batch `number`, counted from 1, with pairs of optimizer and schedule."""


class ReferenceLoop:
    """Fetch, loss, backward, optimizer step, schedule: without hooks, logging and checks.

    It uses the model's loss and the datamodule's batches, so only the loop differs.

    Args:
        model: untrained; it is moved to the device.
        data: already loaded.
        precision: Lightning's name.
        device: where to train.
        batches: planned length of the training.
        clip: maximum gradient norm; 0 is off.

    Raises:
        ZooError: an unsupported precision or model.
    """

    def __init__(
        self,
        model: Model,
        data: DataModule,
        precision: str = "32-true",
        device: torch.device | str = "cpu",
        batches: int = 10**6,
        clip: float = 0.0,
    ) -> None:
        if precision not in AUTOCAST:
            raise ZooError(f"trainer.precision={precision}: no reference loop. Choose {' or '.join(AUTOCAST)}.")
        self.model, self.data, self.clip = model.to(device).train(), data, clip
        self.device, self.dtype = torch.device(device), AUTOCAST[precision]
        # This trainer only reports the length of the training and the batch number to the model.
        model.trainer = L.Trainer(
            accelerator="cpu",
            max_steps=model.optimizer_steps(batches),
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        self.clock = model.trainer.fit_loop.epoch_loop.batch_progress.total
        configured: Any = model.configure_optimizers()
        self.step: Callable[[Batch], Any]
        if isinstance(model, SupportsReferenceStep):
            pairs = [optimizer_and_schedule(one) for one in configured]
            self.step = lambda batch: model.reference_step(batch, self.clock.ready, self.autocast, *pairs)
        elif model.automatic_optimization and configured is not None:
            self.optimizer, self.schedule = optimizer_and_schedule(configured)
            self.step = self.plain_step
        else:
            raise ZooError(f"model={model.registered_name}: no reference loop. Leave it out by --against none.")
        self.batches = self.stream()

    def stream(self) -> Iterator[Batch]:
        """Yield batches endlessly, each epoch in a new order."""
        size, order = self.data.batch_size, self.data.train_sampler(0, 1)  # may sort by length
        generator, home = make_generator(self.data.seed), self.data.batch_device(self.device)
        for number in count():
            for indices in order.epoch(number).to(home).split(size):
                if len(indices) == size:
                    fetched = self.data.fetch(self.data.train, indices, generator, train=True)
                    yield Batch.of(fetched).to(self.device)

    def run(self, n: int) -> None:
        """Train on n batches."""
        for _ in range(n):
            self.clock.ready += 1
            self.step(next(self.batches))

    def autocast(self) -> Any:
        """Context manager of forward passes."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def plain_step(self, batch: Batch) -> None:
        """Step a single optimizer."""
        with self.autocast():
            loss = self.model.loss(batch)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.schedule.step()


def optimizer_and_schedule(configured: dict[str, Any]) -> tuple[torch.optim.Optimizer, Any]:
    """Optimizer and schedule of a result of `configure_optimizers`."""
    return configured["optimizer"], configured["lr_scheduler"]["scheduler"]
