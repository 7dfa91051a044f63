"""The part of a model that uses Lightning: steps, logging, optimizers, counters and checkpoints."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

import pytorch_lightning as L
import torch
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.utilities.enums import GradClipAlgorithmType
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from zoo.core.errors import DataError
from zoo.core.spaces import Image, Series, Vector
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.nn.blocks.standardize import FIT_ROWS, Standardize
from zoo.nn.optim.base import OptimizerConfig, decayed_groups
from zoo.nn.optim.factory import match_state_layout, zero_grad_fast

N_CHECKED = 64  # training samples that are checked before the training


class LightningMixin(L.LightningModule):
    """Training, validation and checkpoints of a `Model` under Lightning's Trainer."""

    registered_name: ClassVar[str]
    spec: DataSpec
    optimizer_config: OptimizerConfig | None  # of the setting `optimizer`
    loss: Callable[[Batch], dict[str, Tensor]]
    conditional: bool
    class_shares: list[float]  # probability of each class where a sample is drawn without a condition
    resize_buffers_like: Callable[[Mapping[str, Tensor]], None]

    def __init__(self) -> None:
        super().__init__()
        self.loss_terms: dict[str, Tensor] = {}  # of this batch, as passed to `log_terms`
        self.step_log: dict[str, Tensor] | None = None  # per-batch scalars; only `zoo.training.fast_loop` sets it
        self.batch_limit: int | None = None  # batches of the training; None where limits of the trainer decide
        self.batch_checked = False
        self.last_logged: dict[str, Tensor] = {}  # last value of each term: some are not computed for every batch

    # -- steps ---------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Fit what training needs to know of the data."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, DataModule):
            self.fit_to_data(data)

    def fit_to_data(self, data: DataModule) -> None:
        """Check a few samples, and fit the standardisation and the class frequencies to the training data."""
        rows = torch.arange(min(N_CHECKED, len(data.train[0])))
        self.check_batch(Batch.of(data.fetch(data.train, rows, torch.Generator().manual_seed(0), train=False)))
        if self.conditional:
            counts = torch.bincount(data.train[1].cpu(), minlength=self.spec.n_classes).double()
            self.class_shares = (counts / counts.sum()).tolist()
        for module in self.children():
            if isinstance(module, Standardize) and module.active:
                rows = torch.linspace(0, len(data.train[0]) - 1, min(FIT_ROWS, len(data.train[0]))).long()
                module.fit(data.fetch(data.train, rows, torch.Generator().manual_seed(0), train=False)[0])

    def on_train_start(self) -> None:
        """Convert optimizer states of older checkpoints."""
        for optimizer in self.trainer.optimizers:
            if isinstance(optimizer, torch.optim.Optimizer):  # Lightning has a stand-in where there is none
                match_state_layout(optimizer)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Convert what any loader yields to a `Batch`, and check the first one."""
        converted = Batch.of(batch)
        self.check_batch(converted)
        return converted

    def check_batch(self, batch: Batch) -> None:
        """Check shape, type and range of images, vectors and series, for the first batch only.

        Raises:
            DataError: a batch that the space of the data does not contain.
        """
        if not self.batch_checked and isinstance(self.spec.x, (Image, Vector, Series)):
            self.spec.x.validate(batch.x)
        self.batch_checked = True

    def forward(self, *given: Any) -> Any:
        """Terms of the loss of a batch in any form, so that `model(batch)` works as for other Lightning modules."""
        return self.loss(Batch.of(*given))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Return the loss of a batch, and log its terms."""
        terms = self.loss(batch)
        self.log_terms(terms)
        return terms["loss"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the terms of the loss on held-out data, averaged over samples."""
        self.log_epoch_mean({f"val/{k}": v for k, v in self.loss(batch).items()}, len(batch))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the terms of the validation on test data, under names that begin with `test/`."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the whole split."""
        self.on_validation_epoch_end()

    # -- logging -------------------------------------------------------------------------------------------------------

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Like LightningModule.log, but store per-batch scalars directly, bypassing Lightning's metric machinery."""
        if self.attached_trainer is not None and self.trainer.testing:
            name = name.replace("val/", "test/", 1)  # `test_step` is the validation of other data
        if self.step_log is None or kwargs.get("on_epoch") or not isinstance(value, (int, float, Tensor)):
            super().log(name, value, *args, **kwargs)
            return
        kept = value.detach() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float32)
        self.step_log[name] = kept if kept.is_floating_point() else kept.float()
        self.trainer.callback_metrics[name] = self.step_log[name]

    def log_terms(self, terms: dict[str, Tensor]) -> None:
        """Log the terms of a training loss, on logging steps only."""
        self.loss_terms.clear()
        self.loss_terms.update({k: v.detach() for k, v in terms.items()})
        self.last_logged.update(self.loss_terms)
        if self.is_logging_step:
            self.log_dict({f"train/{k}": v for k, v in self.last_logged.items()}, sync_dist=True)

    def log_epoch_mean(self, terms: dict[str, Tensor], weight: int) -> None:
        """Log means over a whole split, given the means over `weight` samples, tokens or bytes.

        Lightning averages weights over processes in integers: multiples of the number of processes stay exact.
        """
        self.log_dict(terms, on_epoch=True, batch_size=weight * self.trainer.world_size, sync_dist=True)

    # -- optimizers ----------------------------------------------------------------------------------------------------

    def hidden_layers(self) -> list[nn.Module]:
        """Modules whose matrices Muon trains; AdamW trains the rest, as embeddings and heads."""
        return list(self.children())

    def configure_optimizers(self) -> Any:
        """One optimizer of all parameters, by the setting `optimizer`."""
        return self.build_optimizer(self.parameters())

    def build_optimizer(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        groups: Sequence[dict[str, Any]] = (),
        lr: float | None = None,
        batches_per_step: int = 1,
    ) -> dict[str, Any]:
        """Build the optimizer that the setting `optimizer` chooses, with its schedule, in Lightning's form.

        Matrices, tables and kernels decay; gains and biases do not.

        Args:
            parameters: to train; frozen ones are left out.
            groups: more of torch's parameter groups, with their own learning rate or weight decay.
            lr: learning rate in place of the setting.
            batches_per_step: batches from one optimizer step to the next.

        Raises:
            DataError: the model does not have this setting.
        """
        config = self.optimizer_config
        if config is None:
            raise DataError(
                f"model {type(self).__name__} has no optimizer: add the setting `optimizer: zoo.Optimizer = 'adamw'`, "
                f"or write configure_optimizers."
            )
        trained = [p for p in parameters if p.requires_grad]
        own = decayed_groups(trained, config.weight_decay)
        if lr is not None:
            own = [{**group, "lr": lr} for group in own]
        matrices = [p for module in self.hidden_layers() for p in module.parameters() if p.ndim >= 2]
        optimizer = config.build([*own, *groups], hidden=matrices, fused=self.fused)
        total, trainer = self.total_steps, self.attached_trainer
        accumulates = trainer is not None and self.automatic_optimization and trainer.accumulate_grad_batches > 1

        def factor(step: int) -> float:
            """Factor on the learning rate after so many optimizer steps; an epoch may end with a shorter one."""
            done = self.step + 1 if accumulates and step else step * batches_per_step
            return config.lr_factor(done, total)

        scheduler = LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def fused(self) -> bool:
        """Whether optimizers may use one fused kernel: not if a loss scaler rescales the gradients before the step."""
        return self.attached_trainer is None or self.trainer.precision != "16-mixed"

    def clip_gradients(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients. Lightning rejects fused optimizers under mixed precision even without a loss scaler."""
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            how = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val or 0.0, how)
        else:
            super().clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # -- counters: batches, for any number of optimizers ---------------------------------------------------------------

    @property
    def attached_trainer(self) -> L.Trainer | None:
        """The trainer; None outside a training, where Lightning's `trainer` raises."""
        try:
            return self.trainer
        except RuntimeError:
            return None

    @property
    def step(self) -> int:
        """Batches trained on so far; 0 outside a trainer."""
        trainer = self.attached_trainer
        return max(trainer.fit_loop.epoch_loop.batch_progress.total.ready - 1, 0) if trainer is not None else 0

    def step_optimizer(self, optimizer: Any) -> None:
        """Manual optimisation by several optimizers: step one and its schedule, and clear its gradients."""
        optimizer.step()
        zero_grad_fast(optimizer)
        for schedule in cast(list[Any], self.lr_schedulers()):
            if schedule.optimizer is optimizer.optimizer:
                schedule.step()

    @property
    def is_logging_step(self) -> bool:
        """Whether the scalars of this batch are logged."""
        return (self.step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    @property
    def total_steps(self) -> int:
        """Batches of the whole training."""
        if self.batch_limit is not None:
            return self.batch_limit
        trainer, limits = self.trainer, list[float]()
        estimated = trainer.estimated_stepping_batches  # optimizer steps; counts the batches of an epoch
        if trainer.max_steps != -1:
            limits.append(self.optimizer_steps_to_batches(trainer.max_steps) * trainer.accumulate_grad_batches)
        if trainer.max_epochs is not None and trainer.max_epochs != -1:
            limits.append(trainer.num_training_batches * trainer.max_epochs)
        return int(min(limits, default=estimated))

    def optimizer_steps(self, batches: int) -> int:
        """Number of optimizer steps in so many batches: the unit of Lightning's `max_steps`."""
        return batches

    def optimizer_steps_to_batches(self, steps: int) -> int:
        """Inverse of `optimizer_steps`."""
        return steps

    # -- checkpoints: registry names and plain values only -------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what `zoo.load` needs to build the model, and the terms that the next log row repeats."""
        last = {name: value.clone() for name, value in self.last_logged.items()}
        checkpoint["zoo"] = {**self.note(), "last_logged": last}

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint by Lightning; the data's spec is that of the checkpoint unless `spec` is given."""
        if "spec" not in kwargs:
            note = torch.load(checkpoint_path, map_location="cpu", weights_only=True)["zoo"]
            kwargs["spec"] = DataSpec.from_dict(note["spec"])
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Fit the sizes of buffers to the weights, and restore what `on_save_checkpoint` stored."""
        self.resize_buffers_like(checkpoint["state_dict"])
        self.restore_note(checkpoint["zoo"])
        self.last_logged = dict(checkpoint["zoo"].get("last_logged", {}))

    def note(self) -> dict[str, Any]:
        """Plain values beside the weights in every file of the model."""
        shares = {"class_shares": self.class_shares} if self.conditional else {}
        return {"model": self.registered_name, "spec": self.spec.to_dict(), **shares}

    def restore_note(self, note: dict[str, Any]) -> None:
        """Restore the class frequencies; a file without them keeps equal ones."""
        shares = note.get("class_shares")
        if isinstance(shares, list) and len(shares) == self.spec.n_classes:
            self.class_shares = [float(share) for share in shares]
