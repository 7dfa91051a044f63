"""Stop the training, or skip the batch, if a loss or gradient is not finite."""

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
from zoo.training.fsdp import local, norm_of

LIMIT = 10  # batches skipped in a row
log = logging.getLogger(__name__)


class NonFiniteError(TrainingError):
    """A loss, a gradient or a weight is not finite."""


class NonFiniteGuard(L.Callback):
    """Checks loss terms and gradient norms during training, and all state before a checkpoint.

    On a CPU values are checked at once. On other devices this would synchronise every batch: values are checked every
    `log_every_n_steps` batches and before each checkpoint, so nothing that is not finite is saved.

    Gradient norms are computed on logged batches only. Otherwise the next loss, or the check before a checkpoint,
    reveals a bad gradient. With a loss scaler (precision=16-mixed) gradients are not checked: overflow is normal.

    Args:
        run: folder of the checkpoint that messages name.
        skip: skip a bad batch, at most `LIMIT` in a row. The norm of every batch is computed, and a bad gradient is
            discarded before the optimizer step; this synchronises every batch.
    """

    def __init__(self, run: RunFolder, skip: bool = False) -> None:
        self.run, self.skip, self.skipped = run, skip, 0
        self.norms: dict[str, Tensor] = {}  # of this batch's gradients
        self.readings: list[tuple[int, dict[str, Tensor]]] = []  # batch (from 1), its numbers
        self.buffers: list[Tensor] = []  # as they were before this batch
        self.owners: dict[int, str] = {}  # names of the optimizers, by their id
        self.immediate = False  # values can be read without synchronising

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check where the values are."""
        self.immediate = trainer.world_size == 1 and trainer.strategy.root_device.type == "cpu"

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Copy the buffers: a bad batch corrupts batch statistics."""
        if self.skip:
            self.buffers = [b.clone() for b in pl_module.buffers()]

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Compute the gradient norm, and discard bad gradients: the optimizer then changes nothing."""
        assert isinstance(pl_module, Model)
        if (
            not (self.skip or pl_module.is_logging_step)
            or getattr(trainer.precision_plugin, "scaler", None) is not None
        ):
            return
        params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not params:
            return
        norm = norm_of([p.grad for p in params])
        if id(optimizer) not in self.owners:
            self.owners[id(optimizer)] = owner(pl_module, params[0], trainer)
        self.norms[f"the gradient norm{self.owners[id(optimizer)]}"] = norm
        if (self.skip or self.immediate) and not math.isfinite(norm.item()):
            for p in params:
                p.grad = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the values, if due."""
        assert isinstance(pl_module, Model)
        numbers = {**pl_module.loss_terms, **self.norms}
        if (
            not pl_module.loss_terms and isinstance(outputs, Mapping) and "loss" in outputs
        ):  # it does not use `log_terms`
            numbers["loss"] = outputs["loss"].detach()
        pl_module.loss_terms.clear()
        stepped = bool(self.norms)
        self.norms.clear()
        if self.immediate and not self.skip and all(math.isfinite(value.item()) for value in numbers.values()):
            return
        self.readings.append((pl_module.step + 1, numbers))
        if self.skip:
            self.skip_batch(trainer, pl_module, stepped)
        elif self.immediate or pl_module.is_logging_step or len(self.readings) >= 100:
            self.read(trainer)

    def read(self, trainer: L.Trainer) -> None:
        """Check all collected values.

        Raises:
            NonFiniteError: a value is not finite.
        """
        found = first_bad(self.readings)
        self.readings = []
        if any_rank(trainer, found is not None):
            raise NonFiniteError(self.sentence(found or "another process had values that are not finite"))

    def skip_batch(self, trainer: L.Trainer, module: Model, stepped: bool) -> None:
        """Skip the batch if it is bad: restore the buffers."""
        found = first_bad(self.readings)
        self.readings = []
        if any_rank(trainer, found is not None):
            self.skipped += 1
            if self.skipped > LIMIT:
                raise NonFiniteError(f"{LIMIT} batches in a row were skipped, then {self.sentence(found)}")
            log.warning("%s: skipped (%d of at most %d in a row).", found, self.skipped, LIMIT)
            for buffer, before in zip(module.buffers(), self.buffers, strict=True):
                buffer.copy_(before)
        elif stepped:
            self.skipped = 0

    def assert_finite(self, trainer: L.Trainer) -> None:
        """Check all state before a checkpoint.

        Raises:
            NonFiniteError: a recent loss or gradient, a weight, a buffer or an optimizer state is not finite.
        """
        if self.readings:
            self.read(trainer)
        bad = first_non_finite(trainer)
        if any_rank(trainer, bad is not None):
            raise NonFiniteError(self.sentence(bad or "another process has weights that are not finite"))

    def sentence(self, found: str | None) -> str:
        """Message with the last good checkpoint and the remedy."""
        kept = "There is no checkpoint"
        if self.run.last.is_file():
            kept = f"The last good checkpoint is {self.run.last}"
        return (
            f"{found}. {kept}. Use a smaller learning rate or model.clip in a new run, or skip such batches: "
            f"resume={self.run.folder} trainer.on_nonfinite=skip."
        )


def owner(module: L.LightningModule, parameter: Tensor, trainer: L.Trainer) -> str:
    """Name of the optimizer's module, ` of generator`; empty for a single optimizer."""
    if len(trainer.optimizers) < 2:
        return ""
    parts = (name for name, part in module.named_children() if any(p is parameter for p in part.parameters()))
    return f" of {next(parts, 'the model')}"


def first_bad(readings: list[tuple[int, dict[str, Tensor]]]) -> str | None:
    """Describe the first batch with a bad value: `batch 7: loss is nan, the gradient norm is inf`."""
    everything = [value.detach().float().reshape(()) for _, numbers in readings for value in numbers.values()]
    if not everything:
        return None
    values = iter(torch.stack([value.to(everything[-1].device) for value in everything]).tolist())  # synchronises once
    for batch, numbers in readings:
        named = {name: next(values) for name in numbers}
        if not all(map(math.isfinite, named.values())):
            told = [f"{k} is {v:.4g}" for k, v in named.items() if not math.isfinite(v) or k.startswith("the ")]
            return f"batch {batch}: {', '.join(told)}"
    return None


@torch.no_grad()
def first_non_finite(trainer: L.Trainer) -> str | None:
    """Describe the first bad tensor of weights, buffers and optimizer state: `head.weight is not finite`."""
    module = trainer.lightning_module
    named: dict[str, Tensor] = {name: p for name, p in module.named_parameters() if p.is_floating_point()}
    for number, optimizer in enumerate(trainer.optimizers):
        for state in optimizer.state.values():
            for key, value in state.items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    named[f"{key} (number {len(named)}) of optimizer {number}"] = value
    bad: list[Tensor] = []
    named = {name: local(t.detach()) for name, t in named.items()}  # all processes check their parts
    names = [name for name, t in named.items() if t.numel()]
    if names:
        largest = torch._foreach_norm([named[name] for name in names], math.inf)
        bad += [~size.isfinite() for size in largest]
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point() and buffer.numel():  # a mask may contain infinities
            names.append(name)
            bad.append(buffer.isnan().any())
    if not bad:
        return None
    flags = torch.stack([flag.to(bad[0].device) for flag in bad]).tolist()
    return next((f"{name} is not finite" for name, flag in zip(names, flags, strict=True) if flag), None)


def any_rank(trainer: L.Trainer, bad: bool) -> bool:
    """Whether a condition is true in any process."""
    if trainer.world_size == 1:
        return bad
    return trainer.strategy.reduce_boolean_decision(bad, all=False)
