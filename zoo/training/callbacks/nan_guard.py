"""Numbers gone bad: a loss or a gradient that is not finite ends the training, or costs it one batch, if asked."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor

from zoo.core.errors import TrainingError
from zoo.models.base import Model
from zoo.runs.folder import RunFolder

LIMIT = 10  # batches left out without one good step in between
log = logging.getLogger(__name__)


class NonFiniteError(TrainingError):
    """A loss, a gradient or a weight is not finite."""


class NonFiniteGuard(L.Callback):
    """Looks at the terms of every loss and at the norms of gradients, and vouches for what is saved.

    On a CPU it looks at once. On other devices that would mean to wait for each batch, so the numbers are kept there
    and read together every `log_every_n_steps` batches and before each checkpoint: training may run on for a little,
    but nothing of it is saved. A norm costs a few hundredths of the step of a small model, so it is taken on batches
    that are logged: on others a bad gradient shows in the next loss, or in the weights when they are to be saved. A
    loss scaler (precision=16-mixed) has gradients that are not finite as a matter of course, and handles them itself.

    Args:
        run: whose checkpoint to name.
        skip: leave a bad batch out and go on, at most `LIMIT` times in a row; this takes the norm of every batch,
            waits for it, and throws a bad gradient away before the optimizer takes its step.
    """

    def __init__(self, run: RunFolder, skip: bool = False) -> None:
        self.run, self.skip, self.skipped = run, skip, 0
        self.norms: dict[str, Tensor] = {}  # of this batch's gradients
        self.readings: list[tuple[int, dict[str, Tensor]]] = []  # batch (from 1), its numbers
        self.buffers: list[Tensor] = []  # as they were before this batch
        self.owners: dict[int, str] = {}  # of the optimizers, by their id
        self.at_hand = False  # are numbers there to look at without waiting?

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find out where the numbers will be."""
        self.at_hand = trainer.world_size == 1 and trainer.strategy.root_device.type == "cpu"

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Batch statistics are bad already when the loss is: keep them."""
        if self.skip:
            self.buffers = [b.clone() for b in pl_module.buffers()]

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Take the norm of the gradient; without gradients an optimizer changes neither weights nor its own state."""
        assert isinstance(pl_module, Model)
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        if scaled or not (self.skip or pl_module.is_logging_step):
            return
        params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not params:
            return
        norm = torch.stack(torch._foreach_norm([p.grad for p in params])).norm()
        if id(optimizer) not in self.owners:
            self.owners[id(optimizer)] = owner(pl_module, params[0], trainer)
        self.norms[f"the gradient norm{self.owners[id(optimizer)]}"] = norm
        if (self.skip or self.at_hand) and not math.isfinite(norm.item()):
            for p in params:
                p.grad = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read, if it is time."""
        assert isinstance(pl_module, Model)
        numbers = {**pl_module.loss_terms, **self.norms}
        if not pl_module.loss_terms and isinstance(outputs, Mapping) and "loss" in outputs:  # it logs in its own way
            numbers["loss"] = outputs["loss"].detach()
        pl_module.loss_terms.clear()
        stepped = bool(self.norms)
        self.norms.clear()
        if self.at_hand and not self.skip and all(math.isfinite(value.item()) for value in numbers.values()):
            return
        self.readings.append((pl_module.step + 1, numbers))
        if self.skip:
            self.leave_out(trainer, pl_module, stepped)
        elif self.at_hand or pl_module.is_logging_step or len(self.readings) >= 100:
            self.read(trainer)

    def read(self, trainer: L.Trainer) -> None:
        """Look at all numbers that came together.

        Raises:
            BadNumbers: some are not finite.
        """
        found = first_bad(self.readings)
        self.readings = []
        if any_rank(trainer, found is not None):
            raise NonFiniteError(self.sentence(found or "another process met numbers that are not finite"))

    def leave_out(self, trainer: L.Trainer, module: Model, stepped: bool) -> None:
        """Count the batch if it is bad, and put back what it has touched."""
        found = first_bad(self.readings)
        self.readings = []
        if any_rank(trainer, found is not None):
            self.skipped += 1
            if self.skipped > LIMIT:
                raise NonFiniteError(f"{LIMIT} batches in a row were left out already, and then {self.sentence(found)}")
            log.warning("%s: left out (%d of at most %d in a row).", found, self.skipped, LIMIT)
            for buffer, before in zip(module.buffers(), self.buffers, strict=True):
                buffer.copy_(before)
        elif stepped:
            self.skipped = 0

    def vouch(self, trainer: L.Trainer) -> None:
        """Make sure that what is about to be saved is good.

        Raises:
            BadNumbers: a loss or a gradient since the last look, a weight, a statistic or an optimizer's state is not.
        """
        if self.readings:
            self.read(trainer)
        bad = first_non_finite(trainer)
        if any_rank(trainer, bad is not None):
            raise NonFiniteError(self.sentence(bad or "another process has weights that are not finite"))

    def sentence(self, found: str | None) -> str:
        """What happened, what is left, what to do."""
        kept = "no checkpoint had been written"
        if self.run.last.is_file():
            kept = f"the last good checkpoint is {self.run.last}"
        return (
            f"{found}, and nothing of it was saved: {kept}. A smaller learning rate or model.clip may prevent it in a "
            f"new run; resume={self.run.folder} trainer.on_nonfinite=skip leaves such batches out."
        )


def owner(module: L.LightningModule, parameter: Tensor, trainer: L.Trainer) -> str:
    """` of generator`, where several optimizers make that a question."""
    if len(trainer.optimizers) < 2:
        return ""
    parts = (name for name, part in module.named_children() if any(p is parameter for p in part.parameters()))
    return f" of {next(parts, 'the model')}"


def first_bad(readings: list[tuple[int, dict[str, Tensor]]]) -> str | None:
    """`batch 7: loss is nan, the gradient norm is inf`, of the first batch whose numbers are not all finite."""
    everything = [value.detach().float().reshape(()) for _, numbers in readings for value in numbers.values()]
    if not everything:
        return None
    values = iter(torch.stack([value.to(everything[-1].device) for value in everything]).tolist())  # waits once
    for batch, numbers in readings:
        named = {name: next(values) for name in numbers}
        if not all(map(math.isfinite, named.values())):
            told = [f"{k} is {v:.4g}" for k, v in named.items() if not math.isfinite(v) or k.startswith("the ")]
            return f"batch {batch}: {', '.join(told)}"
    return None


@torch.no_grad()
def first_non_finite(trainer: L.Trainer) -> str | None:
    """`generator.head.weight is not finite`: the first tensor of a training's state that no checkpoint should hold."""
    module = trainer.lightning_module
    named: dict[str, Tensor] = {name: p for name, p in module.named_parameters() if p.is_floating_point()}
    for number, optimizer in enumerate(trainer.optimizers):
        for state in optimizer.state.values():
            for key, value in state.items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    named[f"{key} (number {len(named)}) of optimizer {number}"] = value
    bad: list[Tensor] = []
    names = [name for name, t in named.items() if t.numel()]
    if names:
        largest = torch._foreach_norm([named[name].detach() for name in names], math.inf)
        bad += [~size.isfinite() for size in largest]
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point() and buffer.numel():  # a mask may hold infinities
            names.append(name)
            bad.append(buffer.isnan().any())
    if not bad:
        return None
    flags = torch.stack([flag.to(bad[0].device) for flag in bad]).tolist()
    return next((f"{name} is not finite" for name, flag in zip(names, flags, strict=True) if flag), None)


def any_rank(trainer: L.Trainer, bad: bool) -> bool:
    """All processes do the same: is it bad in any?"""
    if trainer.world_size == 1:
        return bad
    return trainer.strategy.reduce_boolean_decision(bad, all=False)
