"""Build Lightning's trainer from a configuration, and check the hardware."""

import logging
import warnings
from typing import Any

import pytorch_lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.strategies import ParallelStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from rich.console import Console

from zoo.config.compose import to_plain
from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.data.base import DataModule
from zoo.models.base import GenerativeModel
from zoo.runs.folder import RunFolder
from zoo.training import resume
from zoo.training.callbacks.bleu import BLEUCallback
from zoo.training.callbacks.checkpointer import Checkpointer
from zoo.training.callbacks.collapse_monitor import CollapseMonitor
from zoo.training.callbacks.graceful_stop import GracefulStop
from zoo.training.callbacks.max_batches import StopAfterBatches
from zoo.training.callbacks.progress import ProgressBar
from zoo.training.callbacks.rng_state import RNGState
from zoo.training.callbacks.sample_logger import SampleLogger
from zoo.training.callbacks.tensorboard_layout import TensorBoardLayout
from zoo.training.callbacks.throughput import StatsMonitor
from zoo.training.fast_loop import NullProfiler, install_fast_loop

COMPILE = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")  # modes of `torch.compile`


def build_trainer(
    cfg: DictConfig,
    run: RunFolder,
    model: GenerativeModel,
    data: DataModule,
    console: Console,
    keeper: Checkpointer,
    start: resume.ResumePoint | None = None,
) -> L.Trainer:
    """Lightning's trainer with the zoo's clock, loggers and callbacks.

    Raises:
        ZooError: a device that is not there, or a combination that Lightning cannot run.
    """
    options = to_plain(cfg.trainer)
    batches, compiled, tf32 = options.pop("max_steps"), options.pop("compile"), options.pop("tf32", False)
    fast = options.pop("fast_loop")
    every, on_bad = options.pop("checkpoint_every"), options.pop("on_nonfinite")
    if min(batches, options["val_check_interval"], 1 if every is None else every) < 1:
        raise ZooError(
            "trainer.max_steps, trainer.val_check_interval and trainer.checkpoint_every count batches: each must be at "
            "least 1."
        )
    if on_bad not in ("stop", "skip"):
        raise ZooError(
            f"trainer.on_nonfinite: {registry.unknown_name_message('choice', str(on_bad), ['stop', 'skip'])}."
        )
    check_hardware(options, model)
    cuda = options["accelerator"] != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if options["precision"] == "bf16-mixed" and not has_bfloat16(device):
        options["precision"] = "32-true"
    if tf32:
        torch.set_float32_matmul_precision("high")
    compile_networks(model, compiled)
    settings = {kind: to_plain(cfg[kind]) for kind in ("model", "data", "trainer")} | {"seed": cfg.seed}
    callbacks: list[L.Callback] = [
        StopAfterBatches(batches),
        RNGState(),
        GracefulStop(keeper),
        StatsMonitor(),
        keeper.sentinel,
        SampleLogger(run.samples),
        TensorBoardLayout(OmegaConf.to_yaml(cfg, resolve=True), settings),
        ProgressBar(batches, console),
        keeper,
    ]
    if model.family == "adversarial":
        callbacks.insert(-1, CollapseMonitor())
    if model.spec.kind == "pair":
        callbacks.insert(0, BLEUCallback())  # before what shows the numbers
    try:
        trainer = L.Trainer(
            **options,
            max_steps=model.optimizer_steps(batches),
            max_epochs=-1,
            check_val_every_n_epoch=None,  # validations are counted in batches too
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # `zoo.data.loader.ShuffledSampler` deals the samples out
            enable_model_summary=False,
            enable_checkpointing=False,  # `keeper` does it
            default_root_dir=run.folder,
            logger=run.loggers(start.batches if start else None),
            callbacks=callbacks,
            profiler=NullProfiler() if fast else None,
        )
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:  # what Lightning says of a value
        raise ZooError(f"trainer: {' '.join(str(error).split())}") from error
    if isinstance(trainer.strategy, ParallelStrategy) and not any(p.requires_grad for p in model.parameters()):
        raise ZooError(
            f"model {model.registered_name} is fitted once, in one process, so it cannot use trainer.strategy="
            f"{options.get('strategy')} with {trainer.world_size} processes: use trainer=auto or trainer=cpu."
        )
    if starts_processes(trainer) and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ZooError(
            "a sweep cannot start processes: each of them would run the whole sweep again. Train in one process each "
            "(without trainer=ddp, trainer.devices=1), or one after the other without -m: "
            "for m in ae vae; do python train.py model=$m trainer=ddp; done"
        )
    if fast:
        install_fast_loop(trainer)
    return trainer


def has_bfloat16(device: torch.device) -> bool:
    """Does the device multiply bfloat16 matrices itself? Emulation is many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def starts_processes(trainer: L.Trainer) -> bool:
    """Does the trainer repeat the command in other processes? Under torchrun it does not."""
    launcher = trainer.strategy.launcher
    return isinstance(launcher, _SubprocessScriptLauncher) and (
        launcher.num_processes > 1 and not launcher.cluster_environment.creates_processes_externally
    )


def compile_networks(model: GenerativeModel, how: bool | str) -> None:
    """`torch.compile` what the model says, in place.

    Raises:
        ZooError: a mode that there is not.
    """
    if not isinstance(how, bool) and how not in COMPILE:
        raise ZooError(
            f"trainer.compile: {registry.unknown_name_message('mode', str(how), ['true', 'false', *COMPILE])}."
        )
    if how:
        for network in model.compilable():
            network.compile(mode=None if how is True else how)


def check_hardware(options: dict[str, Any], model: GenerativeModel) -> None:
    """Refuse what would fail later; choose the DDP that two optimizers need."""
    if options["accelerator"] in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ZooError("trainer.accelerator=gpu, but this machine has no CUDA device: use trainer=cpu or trainer=auto.")
    if not model.automatic_optimization:
        several = options["devices"] not in (1, "1") or options.get("num_nodes", 1) != 1
        strategy = options.get("strategy", "ddp" if several else "auto")
        if strategy == "ddp":  # each player's backward leaves the other's parameters without gradients
            options["strategy"] = "ddp_find_unused_parameters_true"
        for key, own, off in (("gradient_clip_val", "clip", 0), ("accumulate_grad_batches", "accumulate", 1)):
            if options.get(key) not in (None, off):
                raise ZooError(
                    f"trainer.{key} cannot be used with {model.registered_name}, which steps its optimizers "
                    f"itself: set model.{own} instead."
                )


def quiet_lightning() -> None:
    """Leave the console to the lines that a user needs."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval")  # counted over epochs here
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning's own use of torch
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training")  # averaged copies are
    warnings.filterwarnings("ignore", message=".*returned `None`")  # a model that is fitted has no optimizer
    # Mid-epoch resuming is exact here: the order of the data is entered where it was left.
    warnings.filterwarnings("ignore", message=".*resuming from a checkpoint that ended before the epoch ended")
