"""Lightning's training loop without what costs time and does nothing here.

Between two batches Lightning enters some eighty empty profiling contexts, asks every callback for every hook, looks up
signatures and walks through all that was ever logged: half a millisecond, which is a quarter of a step of a small
model. `FastTrainingLoop` takes its place wherever training is plain: one process, no accumulated gradients, no loss
scaler, no hooks of the model's own in between. Otherwise, and with `trainer.fast_loop=false`, Lightning's loop runs.
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

TRIED = "2.6."  # releases of Lightning
HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
# Of a model: one that has its own takes Lightning's way.
STEPS = (
    *("on_train_batch_start", "on_train_batch_end", "on_before_batch_transfer", "on_after_batch_transfer"),
    *("transfer_batch_to_device", "optimizer_step", "optimizer_zero_grad", "backward", "lr_scheduler_step"),
    *("on_before_zero_grad", "on_before_backward", "on_after_backward", "configure_gradient_clipping"),
)


class NullProfiler(PassThroughProfiler):
    """Profiles nothing, at less cost than Lightning's, which makes a context for everything that it does not time."""

    nothing = nullcontext()

    def profile(self, action_name: str) -> Any:
        """One context for all."""
        return self.nothing


class FastTrainingLoop(_TrainingEpochLoop):
    """One batch after another; what it leaves out is told at the top of this file."""

    lean = False

    def plain(self) -> bool:
        """Is there nothing that only Lightning knows how to do?"""
        trainer, module = self.trainer, self.trainer.lightning_module
        plugin = trainer.precision_plugin
        shared = (L.LightningModule, Model)
        own = [name for name in STEPS if getattr(type(module), name) not in [getattr(base, name) for base in shared]]
        return (
            isinstance(module, Model)
            and not own
            and isinstance(trainer.strategy, SingleDeviceStrategy)
            and trainer.accumulate_grad_batches == 1
            and bool(trainer.optimizers)
            and bool(trainer.optimizers[0].param_groups)  # Lightning's stand-in for no optimizer has none
            and type(plugin).__module__.startswith("pytorch_lightning.plugins.precision")
            and getattr(plugin, "scaler", None) is None
            and not any(isinstance(optimizer, torch.optim.LBFGS) for optimizer in trainer.optimizers)  # wants a closure
            and all(
                config.interval == "step" and config.frequency == 1 and not config.reduce_on_plateau
                for config in trainer.lr_scheduler_configs
            )
        )

    def on_run_start(self, data_fetcher: Any) -> None:
        """At the beginning of an epoch, find out who wants to be called when."""
        super().on_run_start(data_fetcher)
        trainer, strategy = self.trainer, self.trainer.strategy
        self.lean = self.plain()
        for name in ("backward", "optimizer_step"):  # of a model that steps its optimizers itself
            vars(strategy).pop(name, None)
        if not self.lean:
            return
        self.module: Model = trainer.lightning_module  # type: ignore[assignment]
        self.elsewhere = strategy.root_device.type != "cpu"
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        self.hooks = {name: [getattr(c, name) for c in callbacks if overrides_hook(c, name)] for name in HOOKS}
        if type(self.module).on_before_optimizer_step is not L.LightningModule.on_before_optimizer_step:
            self.hooks["on_before_optimizer_step"].append(
                lambda trainer, module, optimizer: module.on_before_optimizer_step(optimizer)
            )
        vars(strategy).update(backward=self.backward, optimizer_step=self.optimizer_step)

    def call(self, name: str, *given: Any) -> None:
        """Call a hook of those callbacks that have it."""
        hooks = self.hooks[name]
        if not hooks:
            return
        module = self.module
        known = vars(module)  # where a module keeps what is neither weight nor part, for which it looks at length
        before, known["_current_fx_name"] = known["_current_fx_name"], name
        for hook in hooks:
            hook(self.trainer, module, *given)
        known["_current_fx_name"] = before

    def advance(self, data_fetcher: Any) -> None:
        """One batch."""
        trainer, results = self.trainer, self._results
        if not self.lean:
            super().advance(data_fetcher)
            return
        if self.restarting and self._should_check_val_fx(data_fetcher):  # a validation may have to come first
            super().advance(data_fetcher)
            results.reset()  # what it logged must not stand in for what comes
            return
        self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        batch = Batch.of(batch)
        index, progress = self.batch_idx + 1, self.batch_progress
        progress.is_last_batch = data_fetcher.done
        if self.elsewhere:
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
        if results:  # means over an epoch, of a model that wants them
            connector.on_batch_end()
        results.batch = results.batch_size = None
        progress.increment_completed()
        if (self._batches_that_stepped + 1) % trainer.log_every_n_steps == 0 or trainer.should_stop:  # type: ignore[attr-defined]
            connector.log_metrics({**(connector.metrics["log"] if results else {}), **rows})

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Validate, where it is time."""
        if not self.lean or self._skip_next_val or self.trainer.should_stop or self._should_check_val_fx(data_fetcher):
            super().on_advance_end(data_fetcher)
            return
        self._batches_that_stepped += 1
        if self.trainer.received_sigterm:
            super().on_advance_end(data_fetcher)  # which ends the training

    def training_step(self, batch: Any, index: int) -> Any:
        """The model's own."""
        known = vars(self.module)
        known["_current_fx_name"] = "training_step"
        with self.trainer.precision_plugin.forward_context():
            output = self.module.training_step(batch, index)
        known["_current_fx_name"] = None
        return output

    def automatic(self, batch: Any, index: int) -> dict[str, Any]:
        """Lightning's automatic optimization."""
        trainer, optimizer = self.trainer, self.trainer.optimizers[0]
        counted = self.automatic_optimization.optim_progress.optimizer
        counted.step.increment_ready()
        output = self.training_step(batch, index)
        if isinstance(output, Tensor):
            loss, outputs = output, {"loss": output.detach()}
        else:  # a dictionary, or None, where nothing is to be learned from a batch; or Lightning has something to say
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
        """A model that steps its optimizers itself."""
        loop = self.manual_optimization
        loop.on_run_start()
        loop._output = loop.output_result_cls.from_training_step_output(self.training_step(batch, index)).asdict()
        return loop.on_run_end()

    def backward(self, loss: Tensor, optimizer: Any = None, *args: Any, **kwargs: Any) -> None:
        """The strategy's, without what is between it and torch."""
        self.call("on_before_backward", loss)
        loss.backward(*args, **kwargs)
        self.call("on_after_backward")

    def optimizer_step(self, optimizer: torch.optim.Optimizer, closure: Any, *_: Any, **kwargs: Any) -> Any:
        """The strategy's; it is asked by models that step their optimizers themselves."""
        with torch.enable_grad():
            result = closure()
        self.call("on_before_optimizer_step", optimizer)
        optimizer_step(optimizer, **kwargs)
        return result


def overrides_hook(callback: L.Callback, name: str) -> bool:
    """Does a callback do anything at a hook?"""
    return getattr(type(callback), name) is not getattr(L.Callback, name)


def optimizer_step(optimizer: torch.optim.Optimizer, **given: Any) -> None:
    """`optimizer.step()`, without the record for torch's profiler that is around it, where nobody has hooks on it."""
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
    optimizer._opt_called = True  # type: ignore[attr-defined]  # as a schedule's wrapper has it
    inner.__wrapped__(optimizer, **given)  # type: ignore[attr-defined]


def install_fast_loop(trainer: L.Trainer) -> None:
    """Give a trainer this loop, where Lightning is of a release whose own does the same (tests/test_fast_loop.py)."""
    if not version("pytorch-lightning").startswith(TRIED):
        return
    old = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = FastTrainingLoop(trainer, min_steps=old.min_steps, max_steps=old.max_steps)
    if not torch.cuda.is_available():
        # Lightning has torch load the driver to ask for GPUs, anew at every step of an optimizer.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
