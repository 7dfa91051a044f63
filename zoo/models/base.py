"""Base class of all models."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.core import registry
from zoo.core.counted import either
from zoo.core.errors import ConfigError, DataError
from zoo.core.space import Space
from zoo.core.spaces import Image, Vector
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.models import abilities, image_abilities  # noqa: F401  # declare them, before any model is a class
from zoo.models.ability import HasAbilities
from zoo.models.lightning_mixin import LightningMixin
from zoo.nn.blocks.layers import channels_last
from zoo.nn.distributions.mixtures import categorical_from_uniform
from zoo.nn.optim.base import OptimizerConfig, build_config
from zoo.nn.samplers.noise import fork, normal


class Model(HasAbilities, LightningMixin):
    """Base class of all models: a loss with named terms. Everything else is an ability; see `zoo.models.abilities`.

    A subclass takes the data's spec and plain keyword-only hyperparameters. It builds its networks by
    `self.build_component`, and writes `loss`. The settings `optimizer: zoo.Optimizer` and `conditional: bool` are
    handled here.

    Args:
        spec: what the data looks like.

    Raises:
        DataError: the space of the data is not among `accepts`, or `conditional` without class labels.
    """

    accepts: ClassVar[tuple[type[Space], ...]] = (Image, Vector)
    family: ClassVar[str] = "other"  # the folder of the model, a heading in `zoo list`
    paper: ClassVar[str] = ""  # "Authors year (arXiv:NUMBER); ..."
    registered_name: ClassVar[str]
    monitor: str = "val/loss"  # validation metric that chooses best.ckpt; lower is better
    shardable: ClassVar[bool] = False  # whether only its two steps use the weights: `trainer=fsdp` may shard them
    conditional: bool = False  # whether `sample(condition=labels)` has an effect

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        folders = cls.__module__.split(".")[:-1]
        if folders[:2] == ["zoo", "models"] and len(folders) > 2:
            cls.family = folders[2]

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if not isinstance(spec.x, self.accepts):
            fits = either([space.registered_name for space in self.accepts])
            made = not any(space.of_data for space in self.accepts)
            remedy = f"Add first_stage=RUN with latents of kind {fits}" if made else f"Choose data of kind {fits}"
            raise DataError(
                f"model={self.display_name}: learns {fits} data, but {spec} is {spec.x.registered_name}. "
                f"{remedy}, or choose a model that learns {spec.x.registered_name} (`zoo list`)."
            )
        self.spec = spec
        self.save_hyperparameters(ignore=["spec"], logger=False)
        self.conditional = bool(self.hparams.get("conditional", self.conditional))
        if self.conditional and not spec.n_classes:
            raise DataError(f"model.conditional=true: {spec} has no class labels. Choose data with labels, or false.")
        self.class_shares = [1 / max(spec.n_classes, 1)] * spec.n_classes  # of the training data, once it is trained
        chosen = self.hparams.get("optimizer")
        self.optimizer_config: OptimizerConfig | None = None if chosen is None else build_config(chosen)

    @property
    def display_name(self) -> str:
        """Registered name, or that of the class."""
        return getattr(self, "registered_name", type(self).__name__)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar terms, averaged over samples, in nats where the objective is a likelihood.

        "loss" is minimised; or "loss_<player>", where players have their own optimizers.
        """
        raise NotImplementedError

    def build_component(self, setting: str, kind: str, *given: Any, method: str = "__call__") -> Any:
        """Build what a setting names: `self.build_component("decoder", "decoder", latent_dim, spec.shape)`.

        Raises:
            ConfigError: a setting that does not fit, or a component without the method that this model needs.
        """
        chosen = self.hparams[setting]
        built = registry.build(kind, chosen, *given, where=f"model.{setting}")
        if not hasattr(built, method):
            name = chosen if isinstance(chosen, str) else chosen["name"]
            raise ConfigError(
                f"model.{setting}={name}: without {method}(), which {self.display_name} calls. Choose another {kind}."
            )
        return channels_last(built) if isinstance(built, nn.Module) else built

    def charts(self) -> dict[str, list[str]]:
        """TensorBoard charts of several curves: title -> tags.

        A chart shows the curves of every run that has its tags. Equal tags have equal titles in all models.
        """
        return {"loss": ["train/loss", "val/loss"]}

    def modules_to_compile(self) -> list[nn.Module]:
        """Networks that `trainer.compile=true` compiles in place; default: all children."""
        return list(self.children())

    def modules_to_average(self) -> dict[str, nn.Module]:
        """Modules, by name, whose weights `callbacks=ema` averages; default: all children with trainable weights."""
        return {name: m for name, m in self.named_children() if any(p.requires_grad for p in m.parameters())}

    def resize_buffers_like(self, weights: Mapping[str, Tensor]) -> None:
        """Resize data-dependent buffers to match a state dict before loading it. Default: no-op."""

    def loaded(self, data: DataModule) -> DataModule:
        """The datamodule whose loaders train this model, given the one of its data. Default: the same."""
        return data

    # -- sampling ----------------------------------------------------------------------------------------------------

    def check_condition(self, condition: Tensor | None) -> None:
        """Refuse a condition if the model is unconditional."""
        if condition is not None and not self.conditional:
            remedy = ", or pass a prompt to generate()" if "generate" in self.abilities else ""
            remedy = ", or train with model.conditional=true" if "conditional" in self.hparams else remedy
            raise DataError(f"condition: model {self.display_name} is unconditional. Leave it out{remedy}.")

    def resolve_labels(self, n: int, condition: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """Return the given labels, or for None random ones with the frequencies of the training data: int64 (n,).

        Draw them before the noise: they come from a fork of the generator.

        Raises:
            DataError: the model is unconditional, or the condition is not n class labels.
        """
        self.check_condition(condition)
        if condition is None:
            if not self.conditional:
                return torch.zeros(n, dtype=torch.int64, device=self.device)
            uniform = torch.rand(n, generator=fork(generator, "label"))
            return categorical_from_uniform(torch.tensor(self.class_shares), uniform).to(self.device)
        if condition.shape != (n,):
            raise DataError(f"condition must hold one class label per sample: {n}, not {tuple(condition.shape)}.")
        if n and not 0 <= int(condition.min()) <= int(condition.max()) < self.spec.n_classes:
            raise DataError(f"condition must be class labels from 0 to {self.spec.n_classes - 1}.")
        return condition.to(self.device)

    def randn(self, *shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal numbers, drawn on the CPU: a seed gives the same numbers on every device.

        The first rows do not depend on the number of rows.
        """
        return normal(*shape, generator=generator).to(self.device)
