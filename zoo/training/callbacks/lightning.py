"""Lightning's callbacks that fit this trainer, which counts batches in place of epochs.

Not offered: StochasticWeightAveraging (counts epochs; see `ema`), GradientAccumulationScheduler (counts epochs; see
`trainer.accumulate_grad_batches`) and ModelCheckpoint (the run folder has its own checkpoints).
"""

from typing import Literal

import pytorch_lightning as L
from pytorch_lightning.callbacks import (
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateMonitor,
    ModelSummary,
    RichModelSummary,
    Timer,
)

from zoo.core.registry import register
from zoo.core.signature import NonNegative, PositiveInt
from zoo.training.context import TrainingContext


@register("callback", "early_stopping")
def early_stopping(
    context: TrainingContext,
    *,
    monitor: str | None = None,
    patience: PositiveInt = 5,
    min_delta: NonNegative = 0.0,
    mode: Literal["min", "max"] = "min",
) -> L.Callback:
    """Stops when the monitored metric no longer improves.

    Args:
        monitor: a logged metric; the model's own by default.
        patience: validations without improvement.
        min_delta: smallest change that counts as an improvement.
        mode: whether lower (min) or higher (max) is better.
    """
    monitor = monitor or context.model.monitor
    return EarlyStopping(monitor, min_delta=min_delta, patience=patience, mode=mode, check_on_train_epoch_end=False)


@register("callback", "lr_monitor")
def lr_monitor(*, log_momentum: bool = False, log_weight_decay: bool = False) -> L.Callback:
    """Logs the learning rate of every parameter group.

    Args:
        log_momentum: log momentum or betas too.
        log_weight_decay: log weight decay too.
    """
    return LearningRateMonitor("step", log_momentum=log_momentum, log_weight_decay=log_weight_decay)


@register("callback", "device_stats")
def device_stats(*, cpu_stats: bool | None = None) -> L.Callback:
    """Logs memory and load of the device.

    Args:
        cpu_stats: log the processor too (needs psutil); by default where it is the device.
    """
    return DeviceStatsMonitor(cpu_stats)


@register("callback", "timer")
def timer(*, duration: str = "00:12:00:00") -> L.Callback:
    """Stops after a time.

    Args:
        duration: DD:HH:MM:SS.
    """
    return Timer(duration, interval="step", verbose=False)


@register("callback", "model_summary")
def model_summary(*, max_depth: PositiveInt = 2) -> L.Callback:
    """Prints the layers and their parameter counts.

    Args:
        max_depth: levels of nested modules.
    """
    summary: ModelSummary = RichModelSummary(max_depth)
    return summary
