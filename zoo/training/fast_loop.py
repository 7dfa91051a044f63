"""Lightning's training loop with less overhead per batch.

Lightning spends half a millisecond between two batches, a quarter of a step of a small model. Most of it is empty
profiling contexts, hooks of callbacks, signatures, and logged values. `FastTrainingLoop` replaces its loop
for one process without accumulation, loss scaler and model hooks. Otherwise, and with `trainer.fast_loop=false`,
Lightning's loop runs.

No other file contains private names of Lightning. They are used with the supported releases only; with others,
Lightning's own loop and its own counts of steps remain.
"""

import os
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

import pytorch_lightning as L
import torch
from pytorch_lightning.loops.optimization.automatic import ClosureResult
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from zoo.data.batch import Batch
from zoo.models.base import Model
from zoo.nn.optim.factory import zero_grad_fast

SUPPORTED = "2.6."  # releases of Lightning
HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
# Hooks of a model: Lightning's loop runs if one is overridden.
MODEL_HOOKS = (
    *("on_train_batch_start", "on_train_batch_end", "on_before_batch_transfer", "on_after_batch_transfer"),
    *("transfer_batch_to_device", "optimizer_step", "optimizer_zero_grad", "backward", "lr_scheduler_step"),
    *("on_before_zero_grad", "on_before_backward", "on_after_backward", "configure_gradient_clipping"),
)


class NullProfiler(PassThroughProfiler):
    """Profiles nothing, with one shared context instead of a new one per action."""

    context = nullcontext()

    def profile(self, action_name: str) -> Any:
        """The shared context."""
        return self.context


class FastTrainingLoop(_TrainingEpochLoop):
    """Training loop of one epoch; see the module for the differences from Lightning's."""

    enabled = False

    def is_supported(self) -> bool:
        """Whether this loop covers every feature that the training uses."""
        trainer, module = self.trainer, self.trainer.lightning_module
        plugin = trainer.precision_plugin
        shared = (L.LightningModule, Model)
        own = [
            name for name in MODEL_HOOKS if getattr(type(module), name) not in [getattr(base, name) for base in shared]
        ]
        return (
            isinstance(module, Model)
            and not own
            and isinstance(trainer.strategy, SingleDeviceStrategy)
            and trainer.accumulate_grad_batches == 1
            and bool(trainer.optimizers)
            and bool(trainer.optimizers[0].param_groups)  # empty if there is no optimizer
            and type(plugin).__module__.startswith("pytorch_lightning.plugins.precision")
            and getattr(plugin, "scaler", None) is None
            and not any(
                isinstance(optimizer, torch.optim.LBFGS) for optimizer in trainer.optimizers
            )  # requires a closure
            and all(
                config.interval == "step" and config.frequency == 1 and not config.reduce_on_plateau
                for config in trainer.lr_scheduler_configs
            )
        )

    def on_run_start(self, data_fetcher: Any) -> None:
        """Collect the overridden hooks at the start of an epoch."""
        super().on_run_start(data_fetcher)
        trainer, strategy = self.trainer, self.trainer.strategy
        self.enabled = self.is_supported()
        for name in ("backward", "optimizer_step"):  # used by manual optimization
            vars(strategy).pop(name, None)
        if not self.enabled:
            return
        self.module: Model = trainer.lightning_module  # type: ignore[assignment]
        self.transfer = strategy.root_device.type != "cpu"
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        self.hooks = {name: [getattr(c, name) for c in callbacks if overrides_hook(c, name)] for name in HOOKS}
        if type(self.module).on_before_optimizer_step is not L.LightningModule.on_before_optimizer_step:
            self.hooks["on_before_optimizer_step"].append(
                lambda trainer, module, optimizer: module.on_before_optimizer_step(optimizer)
            )
        vars(strategy).update(backward=self.backward, optimizer_step=self.optimizer_step)

    def call(self, name: str, *given: Any) -> None:
        """Call a hook of the callbacks that override it."""
        hooks = self.hooks[name]
        if not hooks:
            return
        module = self.module
        known = vars(module)  # attribute access through nn.Module is slower
        before, known["_current_fx_name"] = known["_current_fx_name"], name
        for hook in hooks:
            hook(self.trainer, module, *given)
        known["_current_fx_name"] = before

    def advance(self, data_fetcher: Any) -> None:
        """Process one batch."""
        trainer, results = self.trainer, self._results
        if not self.enabled:
            super().advance(data_fetcher)
            return
        if self.restarting and self._should_check_val_fx(data_fetcher):  # a validation may be due first
            super().advance(data_fetcher)
            results.reset()  # its values must not count as values of this batch
            return
        self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        batch = Batch.of(batch)
        index, progress = self.batch_idx + 1, self.batch_progress
        progress.is_last_batch = data_fetcher.done
        if self.transfer:
            batch = trainer.strategy.batch_to_device(batch)
        progress.increment_ready()
        connector = trainer._logger_connector
        connector._first_loop_iter = connector._first_loop_iter is None
        results.batch, results.batch_size, results.dataloader_idx = batch, None, None
        rows: dict[str, Tensor] = {}
        vars(self.module)["step_log"] = rows

        self.call("on_train_batch_start", batch, index)
        progress.increment_started()
        run = self.automatic if self.module.automatic_optimization else self.manual
        outputs = run(batch, index)
        progress.increment_processed()
        if self.module.automatic_optimization:
            for config in trainer.lr_scheduler_configs:
                self.scheduler_progress.increment_ready()
                config.scheduler.step()  # type: ignore[call-arg]
                self.scheduler_progress.increment_completed()
        self.call("on_train_batch_end", outputs, batch, index)
        vars(self.module)["step_log"] = None
        if results:  # means over an epoch
            connector.on_batch_end()
        results.batch = results.batch_size = None
        progress.increment_completed()
        if (self._batches_that_stepped + 1) % trainer.log_every_n_steps == 0 or trainer.should_stop:  # type: ignore[attr-defined]
            connector.log_metrics({**(connector.metrics["log"] if results else {}), **rows})

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Validate, if due."""
        if (
            not self.enabled
            or self._skip_next_val
            or self.trainer.should_stop
            or self._should_check_val_fx(data_fetcher)
        ):
            super().on_advance_end(data_fetcher)
            return
        self._batches_that_stepped += 1
        if self.trainer.received_sigterm:
            super().on_advance_end(data_fetcher)  # ends the training

    def training_step(self, batch: Any, index: int) -> Any:
        """Run the model's `training_step` under the precision's context."""
        known = vars(self.module)
        known["_current_fx_name"] = "training_step"
        with self.trainer.precision_plugin.forward_context():
            output = self.module.training_step(batch, index)
        known["_current_fx_name"] = None
        return output

    def automatic(self, batch: Any, index: int) -> dict[str, Any]:
        """Step one optimizer, as Lightning's automatic optimization does."""
        trainer, optimizer = self.trainer, self.trainer.optimizers[0]
        counted = self.automatic_optimization.optim_progress.optimizer
        counted.step.increment_ready()
        output = self.training_step(batch, index)
        if isinstance(output, Tensor):
            loss, outputs = output, {"loss": output.detach()}
        else:  # a dictionary; None to skip the batch; or an error
            result = ClosureResult.from_training_step_output(output)
            loss, outputs = result.closure_loss, {} if result.loss is None else result.asdict()  # type: ignore[assignment]
        counted.zero_grad.increment_ready()
        self.call("on_before_zero_grad", optimizer)
        counted.zero_grad.increment_started()
        zero_grad_fast(optimizer)
        counted.zero_grad.increment_completed()
        if loss is not None:
            self.backward(loss)
        self.call("on_before_optimizer_step", optimizer)
        if trainer.gradient_clip_val:
            how = trainer.gradient_clip_algorithm
            trainer.precision_plugin._clip_gradients(self.module, optimizer, trainer.gradient_clip_val, how)
        optimizer_step(optimizer)
        counted.step.increment_completed()
        return outputs

    def manual(self, batch: Any, index: int) -> dict[str, Any]:
        """Run a model that steps its optimizers itself."""
        loop = self.manual_optimization
        loop.on_run_start()
        loop._output = loop.output_result_cls.from_training_step_output(self.training_step(batch, index)).asdict()
        return loop.on_run_end()

    def backward(self, loss: Tensor, optimizer: Any = None, *args: Any, **kwargs: Any) -> None:
        """Replace the strategy's method, without the layers between it and torch."""
        self.call("on_before_backward", loss)
        loss.backward(*args, **kwargs)
        self.call("on_after_backward")

    def optimizer_step(self, optimizer: torch.optim.Optimizer, closure: Any, *_: Any, **kwargs: Any) -> Any:
        """Replace the strategy's method; called by manual optimization."""
        with torch.enable_grad():
            result = closure()
        self.call("on_before_optimizer_step", optimizer)
        optimizer_step(optimizer, **kwargs)
        return result


def overrides_hook(callback: L.Callback, name: str) -> bool:
    """Whether a callback overrides a hook."""
    return getattr(type(callback), name) is not getattr(L.Callback, name)


def optimizer_step(optimizer: torch.optim.Optimizer, **given: Any) -> None:
    """Call `optimizer.step()` without the recording for torch's profiler, unless hooks are registered."""
    outer, inner = vars(optimizer).get("step"), type(optimizer).step
    replaced = outer is not None and not hasattr(outer, "_wrapped_by_lr_sched")
    hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if (
        replaced
        or hooked
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
        or not hasattr(inner, "hooked")
    ):
        optimizer.step(**given)
        return
    optimizer._opt_called = True  # type: ignore[attr-defined]  # as a schedule's wrapper does
    inner.__wrapped__(optimizer, **given)  # type: ignore[attr-defined]


def is_supported_release() -> bool:
    """Whether the private names in this file are those of the installed release of Lightning."""
    return version("pytorch-lightning").startswith(SUPPORTED)


def install_fast_loop(trainer: L.Trainer) -> None:
    """Install this loop in a trainer, if the release of Lightning is supported."""
    if not is_supported_release():
        return
    old = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = FastTrainingLoop(trainer, min_steps=old.min_steps, max_steps=old.max_steps)
    if not torch.cuda.is_available():
        # Otherwise every optimizer step loads the driver to count GPUs.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def log_by_batches(trainer: L.Trainer) -> None:
    """Log rows in batches where the optimizer does not step too: Lightning leaves them out under accumulation."""
    if trainer.accumulate_grad_batches == 1 or not is_supported_release():
        return
    connector: Any = trainer._logger_connector

    def update() -> None:
        if connector.should_update_logs:
            connector.log_metrics(connector.metrics["log"])

    connector.update_train_step_metrics = update


def set_logged_step(trainer: L.Trainer) -> None:
    """Set the horizontal axis of logged values to the number of batches; Lightning counts optimizer steps."""
    if is_supported_release():
        loop = trainer.fit_loop.epoch_loop
        loop._batches_that_stepped = loop.total_batch_idx
