"""The contract of a model, and the training step that one-optimizer families share."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import pytorch_lightning as L
import torch
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.utilities.enums import GradClipAlgorithmType
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from zoo.core import registry
from zoo.core.errors import DataError
from zoo.core.spaces import Image, Space, Vector
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.models.abilities import HasAbilities
from zoo.nn.blocks.layers import channels_last
from zoo.nn.blocks.standardize import FIT_ROWS, Standardize
from zoo.nn.optim.base import OptimizerConfig, build_config, decayed_groups
from zoo.nn.optim.factory import match_state_layout


class GenerativeModel(HasAbilities, L.LightningModule):
    """What every model is: a loss with named terms, and samples in data space.

    A subclass takes the data's spec first and plain keyword-only hyperparameters after it, builds its networks with
    `self.part`, and writes `loss` and `sample`. The rest of the zoo asks what else it can do by the protocols below.

    Args:
        spec: what the data looks like.

    Raises:
        DataError: the kind of data is not among `accepts`.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image, Vector)
    family: ClassVar[str] = "other"  # the folder of the model, a heading in `zoo list`
    paper: ClassVar[str] = ""  # author, year, arXiv number
    registered_name: ClassVar[str]
    monitor: str = "val/loss"  # the validation metric, lower is better, that chooses best.ckpt
    conditional: bool = False  # does `sample(condition=labels)` mean anything?

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        folders = cls.__module__.split(".")[:-1]
        if folders[:2] == ["zoo", "models"] and len(folders) > 2:
            cls.family = folders[2]

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        name = getattr(self, "registered_name", type(self).__name__)
        if not isinstance(spec.x, self.accepts):
            fits = " or ".join(space.registered_name for space in self.accepts)
            raise DataError(
                f"model {name} learns {fits} data, but {spec} is {spec.x.registered_name}: "
                f"choose data of kind {fits}, or a model that learns {spec.x.registered_name} (`zoo list`)."
            )
        self.spec = spec
        self.terms: dict[str, Tensor] = {}  # of the loss of this batch, where `log_terms` was told
        self.rows: dict[str, Tensor] | None = None  # what is logged of this batch, in the zoo's own training loop
        self.latest: dict[str, Tensor] = {}  # what was last measured of each term: some are not due at every batch
        self.save_hyperparameters(ignore=["spec"], logger=False)
        # Of models with the setting `optimizer: Optimizer = "adamw"`.
        chosen = "optimizer" in self.hparams
        self.optimizer_config: OptimizerConfig | None = build_config(self.hparams["optimizer"]) if chosen else None

    def part(self, setting: str, kind: str, *given: Any) -> Any:
        """Build the network that a setting names: `self.part("decoder", "decoder", latent_dim, spec.shape)`."""
        built = registry.build(kind, self.hparams[setting], *given, where=f"model.{setting}")
        return channels_last(built) if isinstance(built, nn.Module) else built

    # -- what a family writes -------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar terms, averaged over samples, in nats where the objective is a likelihood.

        What is minimised is called "loss", or "loss_<player>" where players have optimizers of their own.
        """
        raise NotImplementedError

    def dashboard(self) -> dict[str, list[str]]:
        """Curves that belong on one TensorBoard chart: title -> tags."""
        return {"loss": ["train/loss", "val/loss"]}

    def on_fit_start(self) -> None:
        """Fit the standardisation of vectors to the training data."""
        data = getattr(self.trainer, "datamodule", None)
        for module in self.children():
            if isinstance(module, Standardize) and module.active and isinstance(data, DataModule):
                rows = torch.linspace(0, len(data.train[0]) - 1, min(FIT_ROWS, len(data.train[0]))).long()
                module.fit(data.fetch(data.train, rows, torch.Generator().manual_seed(0), train=False)[0])

    def on_train_start(self) -> None:
        """Go on with the optimizers of an older checkpoint."""
        for optimizer in self.trainer.optimizers:
            if isinstance(optimizer, torch.optim.Optimizer):  # Lightning's stand-in for no optimizer is none
                match_state_layout(optimizer)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Take what any loader yields for a batch."""
        return Batch.of(batch)

    # -- training, for families with one optimizer ----------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """One batch of gradient descent on `loss`."""
        terms = self.loss(batch)
        self.log_terms(terms)
        return terms["loss"]

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Lightning's; but a number of one training batch is kept as it is, without the ten layers that means need."""
        if self.rows is None or kwargs.get("on_epoch") or not isinstance(value, (int, float, Tensor)):
            super().log(name, value, *args, **kwargs)
            return
        kept = value.detach() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float32)
        self.rows[name] = kept if kept.is_floating_point() else kept.float()
        self.trainer._logger_connector._callback_metrics[name] = self.rows[name]

    def clip_gradients(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning's, which in mixed precision refuses optimizers of one kernel, loss scaler or not."""
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            how = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val or 0.0, how)
        else:
            super().clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def log_terms(self, terms: dict[str, Tensor]) -> None:
        """Log terms of a training loss on the batches that are logged; on others it would cost time for nothing."""
        self.terms.clear()
        self.terms.update({k: v.detach() for k, v in terms.items()})
        self.latest.update(self.terms)
        if self.logged:
            self.log_dict({f"train/{k}": v for k, v in self.latest.items()}, sync_dist=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same terms on held-out data, averaged over samples."""
        self.log_means({f"val/{k}": v for k, v in self.loss(batch).items()}, len(batch))

    def log_means(self, terms: dict[str, Tensor], weight: int) -> None:
        """Log means over a whole split, of which these are the means over so many samples, tokens, bytes ...

        Lightning averages the weights over the processes in whole numbers: multiples of their number stay exact.
        """
        self.log_dict(terms, on_epoch=True, batch_size=weight * self.trainer.world_size, sync_dist=True)

    def hidden_layers(self) -> list[nn.Module]:
        """The modules whose matrices Muon takes; embeddings and heads are for AdamW."""
        return list(self.children())

    def configure_optimizers(self) -> Any:
        """One optimizer for everything, by the setting `optimizer`."""
        return self.build_optimizer(self.parameters())

    def build_optimizer(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        groups: Sequence[dict[str, Any]] = (),
        decay_all: bool = False,
        lr: float | None = None,
        batches_per_step: int = 1,
    ) -> dict[str, Any]:
        """The optimizer that the setting `optimizer` chooses, with its schedule, in Lightning's form.

        Args:
            parameters: what to train; those that need no gradient are left out.
            groups: more of torch's parameter groups, with a learning rate or weight decay of their own.
            decay_all: decay gains and biases too, and not matrices, tables and kernels alone.
            lr: in place of the setting.
            batches_per_step: batches from one step of the optimizer to the next.

        Raises:
            DataError: the model has no such setting.
        """
        config = self.optimizer_config
        if config is None:
            raise DataError(
                f"model {type(self).__name__} has no optimizer: add the setting `optimizer: zoo.Optimizer = 'adamw'`, "
                f"or write configure_optimizers."
            )
        trained = [p for p in parameters if p.requires_grad]
        own = [{"params": trained}] if decay_all else decayed_groups(trained, config.weight_decay)
        if lr is not None:
            own = [{**group, "lr": lr} for group in own]
        matrices = [p for module in self.hidden_layers() for p in module.parameters() if p.ndim >= 2]
        optimizer = config.build([*own, *groups], hidden=matrices, fused=self.fused)
        total = self.total_steps
        scheduler = LambdaLR(optimizer, lambda step: config.lr_factor(step * batches_per_step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def fused(self) -> bool:
        """May an optimizer do its step in one kernel? Not where a loss scaler comes between gradients and step."""
        return self._trainer is None or self.trainer.precision != "16-mixed"

    def compilable(self) -> list[nn.Module]:
        """The networks that `trainer.compile=true` compiles in place (so that checkpoint keys keep their names)."""
        return list(self.children())

    def modules_to_average(self) -> dict[str, nn.Module]:
        """The modules, by name, whose weights `callbacks=ema` averages: those that have something to train."""
        return {name: m for name, m in self.named_children() if any(p.requires_grad for p in m.parameters())}

    # -- the clock: batches, whatever the number of optimizers ------------------------------------------------------

    @property
    def step(self) -> int:
        """Batches trained on so far (zero outside a trainer)."""
        if self._trainer is None:
            return 0
        return max(self._trainer.fit_loop.epoch_loop.batch_progress.total.ready - 1, 0)

    @property
    def logged(self) -> bool:
        """Are the numbers of this batch written down?"""
        trainer: Any = self._trainer  # itself, not by the property, which takes its time
        return (self.step + 1) % trainer.log_every_n_steps == 0

    @property
    def total_steps(self) -> int:
        """Batches that the whole training will take."""
        estimated = int(self.trainer.estimated_stepping_batches)  # batches, unless `max_steps` ends the training
        return estimated if self.trainer.max_steps == -1 else self.batches(estimated)

    def optimizer_steps(self, batches: int) -> int:
        """How often optimizers step in so many batches: the unit of Lightning's `max_steps`."""
        return batches

    def batches(self, optimizer_steps: int) -> int:
        """Inverse of `optimizer_steps`."""
        return optimizer_steps

    # -- checkpoints: registry names and plain values, so that nothing else can be loaded -----------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what `zoo.load` needs to build this model again, and the numbers that the next row shows too."""
        latest = {name: value.clone() for name, value in self.latest.items()}
        note = {"model": self.registered_name, "spec": self.spec.to_dict()}
        checkpoint["zoo"] = note | {"latest": latest}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with those numbers."""
        self.latest = dict(checkpoint["zoo"].get("latest", {}))

    def accommodate(self, weights: Mapping[str, Tensor]) -> None:
        """Take the sizes of weights that are about to be loaded, where they depend on the data: nowhere, usually."""

    # -- conveniences -----------------------------------------------------------------------------------------------

    def labels(self, n: int, condition: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """The given labels, checked, or random ones: int64 (n,)."""
        if condition is None:
            return torch.randint(max(self.spec.n_classes, 1), (n,), generator=generator).to(self.device)
        if condition.shape != (n,):
            raise DataError(f"condition must hold one class label per sample: {n}, not {tuple(condition.shape)}.")
        if n and not 0 <= int(condition.min()) <= int(condition.max()) < self.spec.n_classes:
            raise DataError(f"condition must be class labels from 0 to {self.spec.n_classes - 1}.")
        return condition.to(self.device)

    def noise(self, *shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal numbers, drawn on the CPU so that a seed means the same on every device."""
        return torch.randn(*shape, generator=generator).to(self.device)
