"""Fully sharded data parallelism (FSDP): each process keeps a part of the weights, gradients and optimizer state.

Checkpoints hold whole tensors, as those of one process do, so every verb and a resumed run read them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as L
import torch
import torch.distributed as dist
from omegaconf import DictConfig
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from zoo.core.errors import ConfigError
from zoo.models.base import Model

STEPS = ("training_step", "validation_step")  # the only methods that gather the weights


class ShardedStrategy(DDPStrategy):
    """Shards every block of the networks, and the rest of the model as one more part, by torch's `fully_shard`.

    A step gathers the weights of a block before the block runs, and releases them after it (Zhao et al. 2023,
    arXiv:2304.11277). Everything else is the data parallelism of Lightning's `DDPStrategy`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.off: list[str] = []  # names of the callbacks that were left out

    def model_to_device(self) -> None:
        """Leave the model where it is: `configure_ddp` moves and shards one part after another."""

    def configure_ddp(self) -> None:
        """Shard the model."""
        assert self.lightning_module is not None
        shard(self.lightning_module, self.root_device, self.world_size)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole weights and buffers on the CPU of the first process; empty in the others, which take part."""
        assert self.lightning_module is not None
        return self._gather(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Whole optimizer state on the CPU of the first process; empty in the others, which take part."""
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return self._gather(inner.state_dict())

    def _gather(self, state: dict[str, Any]) -> dict[str, Any]:
        first = self.is_global_zero

        def gathered(value: Any) -> Any:
            if isinstance(value, Tensor):
                full = whole(value)
                return full.detach().cpu() if first else None
            if isinstance(value, dict):
                return {key: gathered(each) for key, each in value.items()}
            return [gathered(each) for each in value] if isinstance(value, list) else value

        found: dict[str, Any] = gathered(dict(state))
        return found if first else {}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Keep this process's part of the saved optimizer state."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            state = {
                number: {key: self._part(value, p) for key, value in saved["state"].get(number, {}).items()}
                for number, p in zip(numbers, parameters, strict=True)
            }
            optimizer.load_state_dict({**saved, "state": {n: values for n, values in state.items() if values}})

    def _part(self, value: Any, parameter: Any) -> Any:
        """This process's part of a state as large as its parameter; anything else stays as it is."""
        from torch.distributed.tensor import distribute_tensor

        if not isinstance(value, Tensor) or value.shape != parameter.shape:
            return value
        mesh, placements = parameter.device_mesh, parameter.placements
        return distribute_tensor(value.to(self.root_device), mesh, placements, src_data_rank=None)

    def teardown(self) -> None:
        """End; the parts stay on their devices."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()


def shard(model: L.LightningModule, device: torch.device, processes: int) -> None:
    """Move a model to the device and shard it, part by part, with the weights of the first process.

    Its steps then gather the weights that they use.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (processes,))
    for part in [*blocks(model), model]:
        part.to(device)
        for tensor in [*part.parameters(), *part.buffers()]:
            if not is_sharded(tensor):
                dist.broadcast(tensor.detach(), 0)
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    for name in STEPS:
        register_fsdp_forward_method(model, name)


def blocks(module: nn.Module) -> list[nn.Module]:
    """Modules with weights in the outermost lists of modules: the blocks of a deep network.

    Blocks within blocks belong to the outer one: a process may skip an expert that another process needs. A block
    without `forward` stays with the rest of the model: other methods read its weights.
    """
    found = list[nn.Module]()
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            runs = [block for block in child if type(block).forward is not nn.Module.forward]
            found += [block for block in runs if next(block.parameters(), None) is not None]
        else:
            found += blocks(child)
    return found


def is_sharded(tensor: Tensor) -> bool:
    """Whether a process holds a part of the tensor alone."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor of a sharded one, gathered by all processes together; others stay as they are."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def local(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that this process holds; others stay as they are."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def norm_of(tensors: list[Tensor]) -> Tensor:
    """Euclidean norm of all numbers in tensors; all processes compute that of sharded ones together: ()."""
    return whole(torch.stack(torch._foreach_norm(tensors)).norm())


def check_shardable(cfg: DictConfig, model: Model, options: Mapping[str, Any]) -> None:
    """Check that model, optimizer and precision can train with sharded weights.

    Raises:
        ConfigError: one of them cannot, with the reason.
    """
    name, config, remedy = model.display_name, model.optimizer_config, "Use trainer=ddp"
    if not model.automatic_optimization:
        raise ConfigError(f"trainer.strategy=fsdp: model={name} steps its optimizers itself. {remedy}.")
    if not model.shardable:
        raise ConfigError(f"trainer.strategy=fsdp: model={name} is not tested with sharded weights. {remedy}.")
    if config is not None and config.whole_matrices:
        chosen = getattr(config, "registered_name", type(config).__name__)
        raise ConfigError(
            f"model.optimizer={chosen}: needs whole matrices, and trainer.strategy=fsdp shards them. "
            f"Use model/optimizer=adamw, or trainer=ddp."
        )
    if options.get("precision") == "16-mixed":
        raise ConfigError("trainer.precision=16-mixed: its loss scaler reads whole gradients. Use bf16-mixed.")
    if cfg.trainer.compile:
        raise ConfigError(f"trainer.compile={cfg.trainer.compile}: not with trainer.strategy=fsdp. Use false.")
    unfit = [key for key, p in model.named_parameters() if p.ndim == 0 or not p.is_contiguous()]
    if unfit:  # `fully_shard` does not support them
        raise ConfigError(
            f"trainer.strategy=fsdp: torch cannot shard {unfit[0]} of model={name}, a scalar or with channels last. "
            f"{remedy}."
        )


def without_whole_model(callbacks: Iterable[L.Callback]) -> tuple[list[L.Callback], list[str]]:
    """Callbacks that work with sharded weights, and the names of those that are off.

    Raises:
        ConfigError: a callback without which the training would have another result.
    """
    kept, off = list[L.Callback](), list[str]()
    for callback in callbacks:
        what = getattr(callback, "with_sharded_weights", "on")
        name = getattr(callback, "registered_name", type(callback).__name__)
        if what == "refused":
            raise ConfigError(
                f"callbacks={name}: averages whole weights, which trainer.strategy=fsdp shards. Leave it out, with "
                f"model.training.ema_halflife=0 where the recipe sets it."
            )
        if what == "off":
            off.append(name)
        else:
            kept.append(callback)
    return kept, off
