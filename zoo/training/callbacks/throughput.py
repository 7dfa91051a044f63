"""Gradient norms, learning rates, throughput and memory, read on logging steps only."""

import time
from typing import Any

import pytorch_lightning as L
import torch
from torch import Tensor, nn

from zoo.io.memory import peak_process_memory
from zoo.models.base import Model
from zoo.training.fsdp import norm_of


class StatsMonitor(L.Callback):
    """Logs `grad_norm/<part>`, `lr`, `speed/*` and `memory/*` every `log_every_n_steps` batches.

    Of several optimizers, rates are `lr/<parts>`, by the top-level modules that they update.
    Gradient norms stay on the device until the logger writes them, without synchronisation.
    """

    def __init__(self) -> None:
        self.since: tuple[float, int] | None = None  # time and batch of the last reading
        self.norms: dict[str, Tensor] = {}  # the latest of each part: some optimizers do not step on every batch

    def state_dict(self) -> dict[str, Any]:
        """Latest norms."""
        return {"norms": dict(self.norms)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.norms = dict(state_dict["norms"])

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Compute the gradient norm of each top-level module that this optimizer updates."""
        assert isinstance(pl_module, Model)
        if not pl_module.is_logging_step:
            return
        for name, parameters in parts_of(pl_module, optimizer).items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            if gradients:
                self.norms[f"grad_norm/{name}"] = norm_of(gradients)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log throughput since the last reading, learning rates and memory."""
        assert isinstance(pl_module, Model)
        if not pl_module.is_logging_step:
            return
        now, step = time.perf_counter(), pl_module.step
        unit, per_batch = pl_module.spec.x.unit, pl_module.spec.x.units(batch.x)
        pl_module.log(f"seen/{unit}", float((step + 1) * per_batch * trainer.world_size))
        if self.since is not None:
            batches_per_second = (step - self.since[1]) / (now - self.since[0])
            pl_module.log(f"speed/{unit}_per_s", batches_per_second * per_batch * trainer.world_size)
        self.since = now, step
        pl_module.log_dict(self.norms)
        for number, optimizer in enumerate(trainer.optimizers):
            if optimizer.param_groups:  # empty if there is no optimizer
                parts = "+".join(parts_of(pl_module, optimizer)) or number
                name = f"lr/{parts}" if len(trainer.optimizers) > 1 else "lr"
                pl_module.log(name, optimizer.param_groups[0]["lr"])
        if pl_module.device.type == "cuda":
            pl_module.log("memory/device_GB", torch.cuda.max_memory_allocated() / 1e9)
        if (peak := peak_process_memory()) is not None:
            pl_module.log("memory/peak_GB", peak / 1e9)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Exclude the time of validation."""
        self.since = None


def parts_of(model: Model, optimizer: torch.optim.Optimizer) -> dict[str, list[nn.Parameter]]:
    """Parameters that an optimizer updates, by top-level module."""
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    found = {name: [p for p in part.parameters() if id(p) in moved] for name, part in model.named_children()}
    return {name: parameters for name, parameters in found.items() if parameters}
