"""Train one composed configuration: check everything, say what will run, run it, say what came out."""

import gc

import pytorch_lightning as L
from lightning_fabric.utilities.rank_zero import _get_rank
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from zoo.config.compose import to_plain
from zoo.core import registry
from zoo.core.errors import ZooError, printable
from zoo.data.base import DataModule
from zoo.io.vetting import check_fits_in_memory
from zoo.models.base import GenerativeModel
from zoo.runs.folder import RunFolder
from zoo.training import resume
from zoo.training import warm_start as origins
from zoo.training.callbacks.checkpointer import Checkpointer
from zoo.training.callbacks.graceful_stop import StopRequested
from zoo.training.callbacks.nan_guard import NonFiniteGuard
from zoo.training.failures import explain_failure
from zoo.training.summary import finish, print_header
from zoo.training.trainer import build_trainer, quiet_lightning


def train(cfg: DictConfig, folder: str) -> float | None:
    """Train a model into a run folder.

    Args:
        cfg: what `zoo.config.compose.compose` or Hydra composed.
        folder: the run's folder; `cfg.resume` must name the same one to go on where it stopped.

    Returns:
        The best value of the model's monitored metric (None where training was too short for a validation), so that
        a sweeper can minimise it.

    Raises:
        ZooError: something does not fit; nothing was trained and the folder is gone again.
    """
    run, first = RunFolder(folder), not (_get_rank() or 0)
    console = Console(quiet=not first)
    quiet_lightning()
    if cfg.resume:
        run.config()  # or it is no run
    if first:
        run.claim(resume=bool(cfg.resume))
    try:
        return _run(cfg, run, first, console)
    finally:
        run.release()


def _run(cfg: DictConfig, run: RunFolder, first: bool, console: Console) -> float | None:
    """Train in a folder that is claimed."""
    try:
        origin = origins.find_warm_start(cfg, run)
        if first and not cfg.resume:
            run.begin(cfg)  # from here on a process that is killed leaves a run that can be resumed
        if not isinstance(cfg.seed, int) or cfg.seed < 0:
            raise ZooError(f"seed={cfg.seed} is not a seed: take a whole number from 0.")
        L.seed_everything(cfg.seed, workers=True, verbose=False)
        data = build_data(cfg, origin)
        model = build_model(cfg, data, origin)
        start = resume.find_resume_point(cfg, run, model, data) if cfg.resume else None
        keeper = Checkpointer(
            run, cfg.trainer.checkpoint_every or 0, NonFiniteGuard(run, cfg.trainer.on_nonfinite == "skip")
        )
        trainer = build_trainer(cfg, run, model, data, console, keeper, start)
        data.check_batches(trainer.world_size)
    except BaseException:
        if first and not cfg.resume:
            run.abandon()
        raise
    if first and cfg.resume:
        resume.prepare_resume(cfg, run, start)
    print_header(console, cfg, run, model, data, trainer)
    if origin:
        console.print(
            f"[bold]from    [/bold] {escape(printable(origins.describe(origin)))}", highlight=False, soft_wrap=True
        )
    del origin
    if cfg.resume:
        where = f"{start.batches:,} batches, {start.path.name}" if start else "the beginning: no checkpoint was written"
        console.print(f"[bold]resumed [/bold] from {where}", highlight=False, soft_wrap=True)
    fit(cfg, run, model, data, trainer, console, start)
    best = finish(console, run, model, data, trainer, keeper) if trainer.is_global_zero else None
    del trainer, data, model  # sweeps run many jobs in one process
    gc.collect()
    return best


def fit(
    cfg: DictConfig,
    run: RunFolder,
    model: GenerativeModel,
    data: DataModule,
    trainer: L.Trainer,
    console: Console,
    start: resume.ResumePoint | None,
) -> None:
    """Train; what ends it early ends in one sentence that says what is kept.

    Raises:
        ZooError: the disk or the memory is full, or numbers are not finite.
        SystemExit: a signal stopped it.
    """
    try:
        trainer.fit(model, datamodule=data, ckpt_path=str(start.path) if start else None, weights_only=True)
    except StopRequested as stop:
        again = f"{stop}; all of it is saved. Go on with: python train.py resume={run.folder}"
        console.print(again, highlight=False, soft_wrap=True)
        raise SystemExit(128 + stop.number) from None
    except Exception as error:
        told = None if isinstance(error, ZooError) else explain_failure(error, cfg, run, model, trainer, start)
        if told is None:
            raise
        raise ZooError(told) from error


def build_data(cfg: DictConfig, origin: origins.WarmStart | None = None) -> DataModule:
    """The datamodule, with its data read."""
    data: DataModule = registry.build("data", to_plain(cfg.data), where="data")
    if origin:
        origins.adopt_tokenizer(origin, data)
    data.setup()
    return data


def build_model(cfg: DictConfig, data: DataModule, origin: origins.WarmStart | None = None) -> GenerativeModel:
    """The model for this data; recipe values that are not hyperparameters stay behind."""
    settings = {key: value for key, value in to_plain(cfg.model).items() if key != "training"}
    spec = data.spec
    check_fits_in_memory(lambda: registry.build("model", settings, spec, where="model"))
    model: GenerativeModel = registry.build("model", settings, spec, where="model")
    if origin:
        origins.load_initial_weights(origin, model)
    return model
