"""Train one composed configuration: check, print a header, train, print a summary."""

import gc

import pytorch_lightning as L
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from zoo.config.compose import to_plain
from zoo.core import registry
from zoo.core.errors import ConfigError, ZooError
from zoo.data.base import DataModule
from zoo.io.vetting import check_fits_in_memory
from zoo.models.base import Model
from zoo.runs.folder import RunFolder
from zoo.training import resume
from zoo.training import warm_start as origins
from zoo.training.callbacks.graceful_stop import StopRequested
from zoo.training.context import TrainingContext
from zoo.training.failures import explain_failure
from zoo.training.finders import tune
from zoo.training.lightning_private import process_rank
from zoo.training.summary import finish, print_header, print_lines
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
    run, is_rank_zero = RunFolder(folder), process_rank() == 0
    quiet_lightning()
    if cfg.resume:
        run.config()  # or it is not a run
    if is_rank_zero:
        run.acquire_lock(resume=bool(cfg.resume))
    try:
        return _train(cfg, run, is_rank_zero)
    finally:
        run.release_lock()


def _train(cfg: DictConfig, run: RunFolder, is_rank_zero: bool) -> float | None:
    """Train in a folder that is claimed."""
    try:
        context, origin = prepare(cfg, run, is_rank_zero)
        if cfg.tune is not None:
            tune(context)
            run.clean_up()
            return None
        trainer = build_trainer(context)
        context.data.check_batches(trainer.world_size)
    except BaseException:
        if is_rank_zero and not cfg.resume:
            run.clean_up()
        raise
    if is_rank_zero and cfg.resume:
        resume.prepare_resume(cfg, run, context.start)
    print_header(context, trainer)
    if origin:
        print_lines(context.console, {"from": origins.describe(origin)})
    del origin
    if cfg.resume:
        start = context.start
        where = f"{start.batches:,} batches, {start.path.name}" if start else "the beginning: no checkpoint was written"
        print_lines(context.console, {"resumed": f"from {where}"})
    fit_trainer(context, trainer)
    best = finish(context, trainer) if trainer.is_global_zero else None
    del trainer, context  # sweeps run many jobs in one process
    gc.collect()
    return best


def prepare(cfg: DictConfig, run: RunFolder, is_rank_zero: bool) -> tuple[TrainingContext, origins.WarmStart | None]:
    """Build the data and the model, and find the checkpoint to start from.

    Raises:
        ZooError: a value that does not fit.
    """
    origin = origins.find_warm_start(cfg, run)
    if not isinstance(cfg.seed, int) or cfg.seed < 0:
        raise ConfigError(f"seed={cfg.seed}: not a seed. Take an integer of at least 0.")
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data = build_data(cfg, origin)
    if is_rank_zero and not cfg.resume and cfg.tune is None:
        run.write_config(cfg)  # from here on a process that is killed leaves a run that can be resumed
    model = build_model(cfg, data, origin)
    start = resume.find_resume_point(cfg, run, model, data) if cfg.resume else None
    return TrainingContext(cfg, run, model, data, Console(quiet=not is_rank_zero), start, is_rank_zero), origin


def fit_trainer(context: TrainingContext, trainer: L.Trainer) -> None:
    """Train; report an early end in one sentence.

    Raises:
        ZooError: the disk or the memory is full, or numbers are not finite.
        SystemExit: a signal stopped it.
    """
    start, run = context.start, context.run
    try:
        trainer.fit(
            context.model, datamodule=context.data, ckpt_path=str(start.path) if start else None, weights_only=True
        )
    except StopRequested as stop:
        again = f"{stop}; all of it is saved. Go on with: python train.py resume={run.folder}"
        context.console.print(again, highlight=False, soft_wrap=True)
        raise SystemExit(128 + stop.number) from None
    except Exception as error:
        explained = None if isinstance(error, ZooError) else explain_failure(error, context, trainer)
        if explained is None:
            raise
        raise explained from error


def build_data(cfg: DictConfig, origin: origins.WarmStart | None = None) -> DataModule:
    """The datamodule, with its data read; a recipe's batch size is limited to a quarter of the training set.

    `cfg.data.batch_size` becomes the size that is used. A size that the user gives for the data stays as it is.
    """
    data: DataModule = registry.build("data", to_plain(cfg.data), where="data")
    if origin:
        origins.adopt_tokenizer(origin, data)
    if OmegaConf.is_interpolation(cfg.data, "batch_size"):  # the recipe's
        data.limit_batch_size(data.batch_size)
        cfg.data.batch_size = data.batch_size
    data.setup()
    return data


def build_model(cfg: DictConfig, data: DataModule, origin: origins.WarmStart | None = None) -> Model:
    """The model for this data; recipe values that are not hyperparameters stay behind."""
    settings = {key: value for key, value in to_plain(cfg.model).items() if key != "training"}
    spec = data.spec
    check_fits_in_memory(lambda: registry.build("model", settings, spec, where="model"))
    model: Model = registry.build("model", settings, spec, where="model")
    if origin:
        origins.load_initial_weights(origin, model)
    return model
