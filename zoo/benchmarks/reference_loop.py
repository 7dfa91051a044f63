"""The training loop that one would write by hand: what the zoo's own is measured against."""

import contextlib
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor, nn

from zoo.core.errors import ZooError
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.models.adversarial.gan import GAN
from zoo.models.base import GenerativeModel

AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16}


class ReferenceLoop:
    """Fetch, loss, backward, optimizer step, schedule: no hooks, no logging, no checks, nothing else.

    The model's own loss on the datamodule's own batches, so that what differs is the loop alone.

    Args:
        model: not yet trained; it is moved to the device.
        data: loaded.
        precision: as Lightning names it.
        device: where to train.
        batches: that the training is planned for.
        clip: largest norm of the gradient; 0 is no limit.

    Raises:
        ZooError: a precision or a model that no loop is written for.
    """

    def __init__(
        self,
        model: GenerativeModel,
        data: DataModule,
        precision: str = "32-true",
        device: torch.device | str = "cpu",
        batches: int = 10**6,
        clip: float = 0.0,
    ) -> None:
        if precision not in AUTOCAST:
            raise ZooError(f"trainer.precision={precision} has no hand-written loop: choose {' or '.join(AUTOCAST)}.")
        self.model, self.data, self.clip = model.to(device).train(), data, clip
        self.device, self.dtype = torch.device(device), AUTOCAST[precision]
        # Models ask the trainer how long the training is and which batch it is; this one does nothing but answer.
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
        if isinstance(model, GAN):
            (self.opt_g, self.schedule_g), (self.opt_d, self.schedule_d) = (parts(player) for player in configured)
            self.step = self.adversarial
        elif model.automatic_optimization and configured is not None:
            self.optimizer, self.schedule = parts(configured)
            self.step = self.plain
        else:
            raise ZooError(f"model {model.registered_name} has no hand-written loop: leave it out with --against none.")
        self.batches = self.stream()

    def stream(self) -> Iterator[Batch]:
        """Batches without end, each epoch in its own order."""
        size, order = self.data.batch_size, self.data.order(0, 1)  # which may sort by length
        generator, home = make_generator(self.data.seed), self.data.home(self.device)
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
        """The context of forward passes."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def plain(self, batch: Batch) -> None:
        """One optimizer."""
        with self.autocast():
            loss = self.model.loss(batch)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.schedule.step()

    def adversarial(self, batch: Batch) -> None:
        """The discriminator's step and, where it is due, the generator's and its average's."""
        model, h = self.model, self.model.hparams
        assert isinstance(model, GAN)
        with self.autocast():
            loss: Tensor = model.discriminator_terms(batch)["loss_d"]
        loss.backward()
        self.advance(self.opt_d, self.schedule_d, model.discriminator)
        if self.clock.ready % h["n_critic"]:
            return
        model.discriminator.requires_grad_(False)
        with self.autocast():
            loss = model.generator_terms(batch)["loss_g"]
        loss.backward()
        model.discriminator.requires_grad_(True)
        self.advance(self.opt_g, self.schedule_g, model.generator)
        model.average.update(model.generator, h["n_critic"] * len(batch))

    def advance(self, optimizer: torch.optim.Optimizer, schedule: Any, player: nn.Module) -> None:
        """One player's step."""
        if self.model.hparams["clip"]:
            nn.utils.clip_grad_norm_(player.parameters(), self.model.hparams["clip"])
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def parts(configured: dict[str, Any]) -> tuple[torch.optim.Optimizer, Any]:
    """The optimizer and the schedule of what `configure_optimizers` gives."""
    return configured["optimizer"], configured["lr_scheduler"]["scheduler"]
