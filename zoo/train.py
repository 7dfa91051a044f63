"""Train one composed configuration: check everything, say what will run, run it, say what came out."""

import gc
import logging
import math
import warnings
from typing import Any

import pytorch_lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.rank_zero import _get_rank
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.strategies import ParallelStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from rich.console import Console
from rich.markup import escape

from zoo import origin as origins
from zoo import registry, resume
from zoo.callbacks.alarm import Alarm
from zoo.callbacks.clock import Clock
from zoo.callbacks.dashboard import Dashboard
from zoo.callbacks.interruption import Interrupted, Interruption
from zoo.callbacks.keeper import Keeper
from zoo.callbacks.meters import Meters
from zoo.callbacks.pictures import save_png
from zoo.callbacks.progress import ProgressBar
from zoo.callbacks.random_state import RandomState
from zoo.callbacks.samples import Samples, draw
from zoo.callbacks.sentinel import Sentinel
from zoo.callbacks.translations import Translations
from zoo.checkpoint import read, whole
from zoo.config import plain
from zoo.data.base import DataModule
from zoo.endings import ending
from zoo.errors import ZooError, printable
from zoo.fast_loop import NullProfiler, install_fast_loop
from zoo.models.base import GenerativeModel
from zoo.run import Run
from zoo.weights import refuse_giant
from zoo.whole import write_text

COMPILE = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")  # modes of `torch.compile`


def train(cfg: DictConfig, folder: str) -> float | None:
    """Train a model into a run folder.

    Args:
        cfg: what `zoo.config.compose` or Hydra composed.
        folder: the run's folder; `cfg.resume` must name the same one to go on where it stopped.

    Returns:
        The best value of the model's monitored metric (None where training was too short for a validation), so that
        a sweeper can minimise it.

    Raises:
        ZooError: something does not fit; nothing was trained and the folder is gone again.
    """
    run, first = Run(folder), not (_get_rank() or 0)
    console = Console(quiet=not first)
    quiet_lightning()
    if cfg.resume:
        run.config()  # or it is no run
    if first:
        run.claim(resume=bool(cfg.resume))
    try:
        return trained(cfg, run, first, console)
    finally:
        run.release()


def trained(cfg: DictConfig, run: Run, first: bool, console: Console) -> float | None:
    """Train in a folder that is claimed."""
    try:
        origin = origins.find(cfg, run)
        if first and not cfg.resume:
            run.begin(cfg)  # from here on a process that is killed leaves a run that can be resumed
        if not isinstance(cfg.seed, int) or cfg.seed < 0:
            raise ZooError(f"seed={cfg.seed} is not a seed: take a whole number from 0.")
        L.seed_everything(cfg.seed, workers=True, verbose=False)
        data = build_data(cfg, origin)
        model = build_model(cfg, data, origin)
        start = resume.point(cfg, run, model, data) if cfg.resume else None
        keeper = Keeper(run, cfg.trainer.save_every or 0, Sentinel(run, cfg.trainer.on_bad_numbers == "skip"))
        trainer = build_trainer(cfg, run, model, data, console, keeper, start)
        data.check_batches(trainer.world_size)
    except BaseException:
        if first and not cfg.resume:
            run.abandon()
        raise
    if first and cfg.resume:
        resume.take_up(cfg, run, start)
    announce(console, cfg, run, model, data, trainer)
    if origin:
        console.print(
            f"[bold]from    [/bold] {escape(printable(origins.described(origin)))}", highlight=False, soft_wrap=True
        )
    del origin
    if cfg.resume:
        where = f"{start.batches:,} batches, {start.path.name}" if start else "the beginning: no checkpoint was written"
        console.print(f"[bold]resumed [/bold] from {where}", highlight=False, soft_wrap=True)
    fit(cfg, run, model, data, trainer, console, start)
    best = conclude(console, run, model, data, trainer, keeper) if trainer.is_global_zero else None
    del trainer, data, model  # sweeps run many jobs in one process
    gc.collect()
    return best


def fit(
    cfg: DictConfig,
    run: Run,
    model: GenerativeModel,
    data: DataModule,
    trainer: L.Trainer,
    console: Console,
    start: resume.Start | None,
) -> None:
    """Train; what ends it early ends in one sentence that says what is kept.

    Raises:
        ZooError: the disk or the memory is full, or numbers are not finite.
        SystemExit: a signal stopped it.
    """
    try:
        trainer.fit(model, datamodule=data, ckpt_path=str(start.path) if start else None, weights_only=True)
    except Interrupted as stop:
        again = f"{stop}; all of it is saved. Go on with: python train.py resume={run.folder}"
        console.print(again, highlight=False, soft_wrap=True)
        raise SystemExit(128 + stop.number) from None
    except Exception as error:
        told = None if isinstance(error, ZooError) else ending(error, cfg, run, model, trainer, start)
        if told is None:
            raise
        raise ZooError(told) from error


def build_data(cfg: DictConfig, origin: origins.Origin | None = None) -> DataModule:
    """The datamodule, with its data read."""
    data: DataModule = registry.build("data", plain(cfg.data), where="data")
    if origin:
        origins.prepare(origin, data)
    data.setup()
    return data


def build_model(cfg: DictConfig, data: DataModule, origin: origins.Origin | None = None) -> GenerativeModel:
    """The model for this data; recipe values that are not hyperparameters stay behind."""
    settings = {key: value for key, value in plain(cfg.model).items() if key != "recipe"}
    spec = data.spec
    refuse_giant(lambda: registry.build("model", settings, spec, where="model"))
    model: GenerativeModel = registry.build("model", settings, spec, where="model")
    if origin:
        origins.hand_over(origin, model)
    return model


def build_trainer(
    cfg: DictConfig,
    run: Run,
    model: GenerativeModel,
    data: DataModule,
    console: Console,
    keeper: Keeper,
    start: resume.Start | None = None,
) -> L.Trainer:
    """Lightning's trainer with the zoo's clock, loggers and callbacks.

    Raises:
        ZooError: a device that is not there, or a combination that Lightning cannot run.
    """
    options = plain(cfg.trainer)
    batches, compiled, tf32 = options.pop("max_steps"), options.pop("compile"), options.pop("tf32", False)
    fast = options.pop("fast_loop")
    every, on_bad = options.pop("save_every"), options.pop("on_bad_numbers")
    if min(batches, options["val_check_interval"], 1 if every is None else every) < 1:
        raise ZooError(
            "trainer.max_steps, trainer.val_check_interval and trainer.save_every count batches: each must be at "
            "least 1."
        )
    if on_bad not in ("stop", "skip"):
        raise ZooError(f"trainer.on_bad_numbers: {registry.unknown('choice', str(on_bad), ['stop', 'skip'])}.")
    check_hardware(options, model)
    cuda = options["accelerator"] != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if options["precision"] == "bf16-mixed" and not has_bfloat16(device):
        options["precision"] = "32-true"
    if tf32:
        torch.set_float32_matmul_precision("high")
    compile_networks(model, compiled)
    settings = {kind: plain(cfg[kind]) for kind in ("model", "data", "trainer")} | {"seed": cfg.seed}
    callbacks: list[L.Callback] = [
        Clock(batches),
        RandomState(),
        Interruption(keeper),
        Meters(),
        keeper.sentinel,
        Samples(run.samples),
        Dashboard(OmegaConf.to_yaml(cfg, resolve=True), settings),
        ProgressBar(batches, console),
        keeper,
    ]
    if model.family == "adversarial":
        callbacks.insert(-1, Alarm())
    if model.spec.kind == "pair":
        callbacks.insert(0, Translations())  # before what shows the numbers
    try:
        trainer = L.Trainer(
            **options,
            max_steps=model.optimizer_steps(batches),
            max_epochs=-1,
            check_val_every_n_epoch=None,  # validations are counted in batches too
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # `zoo.data.loader.Order` deals the samples out
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
        raise ZooError(f"trainer.compile: {registry.unknown('mode', str(how), ['true', 'false', *COMPILE])}.")
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


def announce(
    console: Console, cfg: DictConfig, run: Run, model: GenerativeModel, data: DataModule, trainer: L.Trainer
) -> None:
    """What is about to happen, in five lines."""
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    device = trainer.strategy.root_device.type + (f" x {trainer.world_size}" if trainer.world_size > 1 else "")
    unit = {"tokens": "windows", "pair": "pairs", "preferences": "pairs"}.get(data.spec.kind, "samples")
    recipe = HydraConfig.get().runtime.choices["model"] if HydraConfig.initialized() else cfg.model.name
    length = f"{cfg.trainer.max_steps:,} batches of {cfg.data.batch_size}"
    lines = {
        "model": f"{recipe}: {parameters:,} parameters",
        "data": f"{data.spec}: {len(data.train[0]):,} training and {len(data.val[0]):,} validation {unit}",
        "trainer": f"{length} on {device}, precision {trainer.precision}",
        "run": str(run.folder),
        "watch": f"tensorboard --logdir {run.folder} --samples_per_plugin images=200",
    }
    for key, text in lines.items():
        console.print(f"[bold]{key:<8}[/bold] {escape(printable(text))}", highlight=False, soft_wrap=True)


def conclude(
    console: Console, run: Run, model: GenerativeModel, data: DataModule, trainer: L.Trainer, keeper: Keeper
) -> float | None:
    """Draw the best weights, and say what was reached and where it lies."""
    best = keeper.best if math.isfinite(keeper.best) else None
    if best is not None and run.best.is_file() and whole(run.best):
        model.load_state_dict(read(run.best)["state_dict"])
    files = []
    for name, picture in draw(model, data).items():
        stem = "final" if name == "samples" else f"final-{name}"
        files.append(run.samples / f"{stem}{'.txt' if isinstance(picture, str) else '.png'}")
        if isinstance(picture, str):
            write_text(files[-1], picture)
        else:
            save_png(files[-1], picture)
    last = trainer.callback_metrics.get(model.monitor)
    reached = f"{model.monitor} {best:.4g}" if best is not None else "no validation was reached"
    lines = {
        "reached": reached + (f" (last {last.item():.4g})" if last is not None and best is not None else ""),
        "weights": f"{run.best} and {run.last.name}",
        "samples": "  ".join(map(str, files)),
        "more": f"zoo sample {run.folder} -n 64",
        "watch": f"tensorboard --logdir {run.folder} --samples_per_plugin images=200",
    }
    for key, text in lines.items():
        console.print(f"[bold]{key:<8}[/bold] {escape(printable(text))}", highlight=False, soft_wrap=True)
    return best


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
