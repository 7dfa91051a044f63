"""Build Lightning's trainer from a configuration; check settings and hardware."""

import logging
import warnings
from typing import Any

import pytorch_lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from pytorch_lightning.strategies import ParallelStrategy

from zoo.config.compose import to_plain
from zoo.core.command import train_command
from zoo.core.errors import ConfigError, HardwareError
from zoo.core.registry import unknown_name_message
from zoo.models.base import Model
from zoo.training.components import build_callbacks, build_loggers
from zoo.training.context import TrainingContext
from zoo.training.fast_loop import NullProfiler, install_fast_loop
from zoo.training.fsdp import ShardedStrategy, check_shardable, without_whole_model
from zoo.training.profilers import build_profiler
from zoo.training.trainer_settings import OWN, check_settings

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def build_trainer(context: TrainingContext) -> L.Trainer:
    """Build Lightning's trainer with callbacks and loggers.

    Raises:
        ConfigError: a combination that Lightning cannot run.
        HardwareError: a device that this machine does not have.
    """
    cfg, model = context.cfg, context.model
    check_settings({**to_plain(cfg.trainer), **context.options})
    check_accumulation(cfg.trainer, model)
    options = lightning_options(cfg, model)
    if options.get("log_every_n_steps"):  # a shorter training logs its last batch
        options["log_every_n_steps"] = min(options["log_every_n_steps"], cfg.trainer.max_steps)
    options |= context.options
    sharded = ShardedStrategy() if options.get("strategy") == "fsdp" else None
    if sharded:
        check_shardable(cfg, model, options)
        options |= {"strategy": sharded, "inference_mode": False}  # gathered weights are used in training again
    if cfg.trainer.get("tf32"):
        torch.set_float32_matmul_precision("high")
    compile_networks(model, cfg.trainer.compile)
    fast = cfg.trainer.fast_loop and cfg.profiler is None  # profilers need Lightning's loop
    callbacks, loggers = build_callbacks(context), build_loggers(context)
    if sharded:
        callbacks, sharded.off = without_whole_model(callbacks)
    profiler = build_profiler(cfg.profiler, context.run)
    try:
        trainer = L.Trainer(
            **options,
            max_steps=lightning_max_steps(model, cfg.trainer.max_steps),
            max_epochs=-1,
            check_val_every_n_epoch=None,  # validations are counted in batches too
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # `zoo.data.loader.ShuffledSampler` distributes the samples
            enable_model_summary=False,
            enable_checkpointing=False,  # `Checkpointer` writes them
            default_root_dir=context.run.folder,
            logger=loggers,
            callbacks=callbacks,
            profiler=NullProfiler() if fast else profiler,
        )
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:  # Lightning's checks of values
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from None
    check_processes(trainer, model, cfg.trainer.get("strategy"))
    if fast:
        install_fast_loop(trainer)
    return trainer


def check_accumulation(trainer: DictConfig, model: Model) -> None:
    """Check that the training is long enough for one optimizer step.

    Raises:
        ConfigError: more accumulated batches than batches.
    """
    batches, accumulated = trainer.max_steps, trainer.get("accumulate_grad_batches") or 1
    name = "trainer.accumulate_grad_batches"
    if not model.optimizer_steps(batches):
        name, accumulated = "model.accumulate", model.hparams.get("accumulate")
    if not model.optimizer_steps(batches) or accumulated > batches:
        raise ConfigError(
            f"{name}={accumulated}: more batches than trainer.max_steps={batches}, so no optimizer step is taken. "
            f"Use at most {batches}."
        )


def lightning_max_steps(model: Model, batches: int) -> int:
    """Lightning's limit in optimizer steps. One more where the last batches complete none: `StopAfterBatches` ends."""
    steps = model.optimizer_steps(batches)
    return steps if model.optimizer_steps_to_batches(steps) == batches else steps + 1


def lightning_options(cfg: DictConfig, model: Model) -> dict[str, Any]:
    """Arguments of Lightning's Trainer, adapted to the hardware.

    Raises:
        ConfigError: an option that the model handles itself.
        HardwareError: a device that this machine does not have.
    """
    options = {key: value for key, value in to_plain(cfg.trainer).items() if key not in OWN}
    check_hardware(options, model)
    cuda = options["accelerator"] != "cpu" and torch.cuda.is_available()
    if options["precision"] == "bf16-mixed" and not has_bfloat16(torch.device("cuda" if cuda else "cpu")):
        options["precision"] = "32-true"
    return options


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices natively. Emulation is many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def compile_networks(model: Model, mode: bool | str) -> None:
    """`torch.compile` the model's networks in place.

    Raises:
        ConfigError: an unknown mode.
    """
    if not isinstance(mode, bool) and mode not in COMPILE_MODES:
        choices = ["true", "false", *COMPILE_MODES]
        raise ConfigError(f"trainer.compile={mode}: {unknown_name_message('mode', str(mode), choices)}.")
    if mode:
        for network in model.modules_to_compile():
            network.compile(mode=None if mode is True else mode)


def check_hardware(options: dict[str, Any], model: Model) -> None:
    """Check device and strategy; choose the DDP strategy for several optimizers.

    Raises:
        ConfigError: an option that the model handles itself.
        HardwareError: a GPU that this machine does not have.
    """
    if options["accelerator"] in ("gpu", "cuda") and not torch.cuda.is_available():
        raise HardwareError(
            f"trainer.accelerator={options['accelerator']}: this machine has no CUDA device. "
            f"Use trainer=cpu or trainer=auto."
        )
    if model.automatic_optimization:
        return
    several = options["devices"] not in (1, "1") or options.get("num_nodes", 1) != 1
    strategy = options.get("strategy", "ddp" if several else "auto")
    if strategy == "ddp":  # each optimizer's backward leaves the other's parameters without gradients
        options["strategy"] = "ddp_find_unused_parameters_true"
    for key, own, off in (("gradient_clip_val", "model.clip", 0), ("accumulate_grad_batches", "model.accumulate", 1)):
        if options.get(key) not in (None, off):
            raise ConfigError(
                f"trainer.{key}={options[key]}: {model.registered_name} steps its optimizers itself. Set {own} instead."
            )


def check_processes(trainer: L.Trainer, model: Model, strategy: str | None) -> None:
    """Check that a model or sweep can use several processes.

    Raises:
        ConfigError: a model without gradients, or a sweep whose jobs start processes.
    """
    if isinstance(trainer.strategy, ParallelStrategy) and not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(
            f"trainer.strategy={strategy}: {model.registered_name} is fitted once, in one process, and cannot use "
            f"{trainer.world_size}. Use trainer=auto or trainer=cpu."
        )
    environment = getattr(trainer.strategy.launcher, "cluster_environment", None)
    starts_processes = environment is not None and not environment.creates_processes_externally  # as torchrun does
    if (
        starts_processes
        and trainer.world_size > 1
        and HydraConfig.initialized()
        and HydraConfig.get().mode == RunMode.MULTIRUN
    ):
        raise ConfigError(
            f"a sweep cannot start processes: each would run the whole sweep again. Use one process per job "
            f"(trainer.devices=1), or a shell loop: `for s in 1 2; do {train_command()} trainer=ddp seed=$s; done`."
        )


def quiet_lightning() -> None:
    """Silence messages of Lightning that do not apply here."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*checkpoint directory .* exists and is not empty",
        ".*does not have many workers",
        ".*smaller than the logging interval",  # the interval spans epochs here
        ".*LeafSpec.* is deprecated",  # Lightning's use of torch
        ".*in eval mode at the start of training",  # averaged copies are
        ".*overridden `on_before_batch_transfer`",  # the model turns any batch into a `Batch`
        ".*returned `None`",  # a fitted model has no optimizer
        # Mid-epoch resuming is exact here: the data order continues where it stopped.
        ".*resuming from a checkpoint that ended before the epoch ended",
    ):
        warnings.filterwarnings("ignore", message=message)
