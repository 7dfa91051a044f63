"""Suggest a learning rate or a batch size: `tune=lr`, `tune=batch_size`. Nothing is trained or written."""

import copy
import math
import time
from typing import Any

import pytorch_lightning as L
import torch

from zoo.core.command import train_command
from zoo.core.errors import ConfigError
from zoo.core.registry import unknown_name_message
from zoo.io.memory import out_of_memory
from zoo.training.context import TrainingContext
from zoo.training.summary import print_lines
from zoo.training.trainer import lightning_options

STEPS, LOWEST, HIGHEST = 100, 1e-6, 1.0  # of the range test
DIVERGED = 4.0  # times the lowest loss
GAIN = 1.05  # required speed-up of a larger batch


def tune(context: TrainingContext) -> None:
    """Print the suggestion of the finder that `tune` names.

    Raises:
        ConfigError: an unknown finder, or a model that it does not fit.
    """
    name = str(context.cfg.tune)
    if name not in FINDERS:
        raise ConfigError(f"tune={name}: {unknown_name_message('finder', name, sorted(FINDERS))}.")
    if context.cfg.resume:
        raise ConfigError(f"tune={name}: not possible for a resumed run. Remove resume or tune.")
    print_lines(context.console, FINDERS[name](context))


class LRRangeTest(L.Callback):
    """Raises the learning rate exponentially, batch by batch, until the loss diverges (Smith 2017, arXiv:1506.01186).

    Args:
        steps: batches from the lowest to the highest rate.
    """

    def __init__(self, steps: int = STEPS) -> None:
        self.steps, self.average = steps, 0.0
        self.rates: list[float] = []
        self.losses: list[float] = []  # exponential means, corrected for their start

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Set the rate of this batch."""
        rate = LOWEST * (HIGHEST / LOWEST) ** (len(self.rates) / (self.steps - 1))
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        self.rates.append(rate)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any) -> None:
        """Record the loss; stop at the end of the range or at divergence."""
        self.average = 0.95 * self.average + 0.05 * float(outputs["loss"])
        loss = self.average / (1 - 0.95 ** len(self.rates))
        self.losses.append(loss)
        diverged = len(self.losses) > 10 and loss > min(self.losses) + (DIVERGED - 1) * abs(min(self.losses))
        if not math.isfinite(loss) or diverged or len(self.rates) == self.steps:
            trainer.should_stop = True

    def suggestion(self) -> float | None:
        """Learning rate of the steepest descent; None if the loss never decreases."""
        losses = torch.tensor([loss for loss in self.losses if math.isfinite(loss)])[10:]
        if len(losses) < 3:
            return None
        (slope,) = torch.gradient(losses)
        return self.rates[10 + int(slope.argmin())] if slope.min() < 0 else None


def find_lr(context: TrainingContext) -> dict[str, str]:
    """Suggest a learning rate by a range test.

    Raises:
        ConfigError: a model with several optimizers, or none; or no rate lowers the loss.
    """
    model = context.model
    if not model.automatic_optimization:
        raise ConfigError(
            f"tune=lr: {model.registered_name} has several optimizers, so there is not a single loss to test. "
            f"Compare rates by a sweep: {train_command()} -m model.optimizer.lr=1e-4,3e-4,1e-3."
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(f"tune=lr: {model.registered_name} is fitted without gradients. Leave out tune.")
    test = LRRangeTest()
    short_trainer(context, STEPS, test).fit(model, datamodule=context.data)
    found = test.suggestion()
    if found is None:
        raise ConfigError(f"tune=lr: no rate from {LOWEST:g} to {HIGHEST:g} lowers the loss. Set it by hand.")
    return {"tune": f"learning rate {found:.1e}: the loss falls fastest there, over {len(test.rates)} batches"}


def find_batch_size(context: TrainingContext) -> dict[str, str]:
    """Suggest the smallest batch size that is within 5 % of the fastest; sizes double until memory or speed ends."""
    data, fresh = context.data, copy.deepcopy(context.model.state_dict())
    size, largest = data.batch_size, len(data.train[0])
    speeds: dict[int, float] = {}
    lines: dict[str, str] = {}
    stalled = 0
    while size <= largest and stalled < 2:
        data.batch_size = size
        context.model.load_state_dict(fresh)
        try:
            speeds[size] = samples_per_second(context)
        except Exception as error:
            if not out_of_memory(error):
                raise
            lines[str(size)] = "out of memory"
            break
        lines[str(size)] = f"{speeds[size]:,.0f} samples/s"
        stalled = 0 if speeds[size] >= GAIN * max([*list(speeds.values())[:-1], 0.0]) else stalled + 1
        size *= 2
    if not speeds:
        raise ConfigError(f"data.batch_size={data.batch_size}: out of memory already. Give a smaller one.")
    best = min(size for size, speed in speeds.items() if speed * GAIN >= max(speeds.values()))
    return lines | {"tune": f"data.batch_size={best}: larger ones are at most 5 % faster, or do not fit"}


def samples_per_second(context: TrainingContext, batches: int = 8) -> float:
    """Measure training throughput, without the first batches."""
    clock = _Clock()
    short_trainer(context, batches, clock).fit(context.model, datamodule=context.data)
    timed = clock.times[len(clock.times) // 4 :]
    return context.data.batch_size * (len(timed) - 1) / max(timed[-1] - timed[0], 1e-9)


class _Clock(L.Callback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Synchronise, and read the clock."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def short_trainer(context: TrainingContext, batches: int, callback: L.Callback) -> L.Trainer:
    """Build a single-process trainer for a few batches, without validation, loggers and checkpoints."""
    options = lightning_options(context.cfg, context.model)
    skipped = ("devices", "num_nodes", "strategy", "val_check_interval", "limit_val_batches", "log_every_n_steps")
    return L.Trainer(
        **{key: value for key, value in options.items() if key not in skipped},
        devices=1,
        max_steps=context.model.optimizer_steps(batches),
        max_epochs=-1,
        limit_val_batches=0,
        log_every_n_steps=batches + 1,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        logger=False,
        callbacks=[callback],
    )


FINDERS = {"lr": find_lr, "batch_size": find_batch_size}
