"""Train one composed configuration: check, print a header, train, print a summary."""

import gc

import pytorch_lightning as L
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from zoo.config.compose import to_plain, typed_overrides
from zoo.core import registry
from zoo.core.command import train_command
from zoo.core.errors import ConfigError, ZooError
from zoo.core.signature import check_integer
from zoo.data.base import DataModule
from zoo.io.vetting import check_fits_in_memory
from zoo.models.base import Model
from zoo.runs.folder import RunFolder
from zoo.training import resume, warm_start
from zoo.training.callbacks.graceful_stop import StopRequested
from zoo.training.context import TrainingContext
from zoo.training.failures import explain_failure
from zoo.training.finders import tune
from zoo.training.memory_estimate import check_memory
from zoo.training.pretrained_parts import find_parts, load_parts
from zoo.training.summary import finish, print_header, print_lines
from zoo.training.trainer import build_trainer, quiet_lightning


def train(cfg: DictConfig, folder: str) -> float | None:
    """Train a model into a run folder.

    Args:
        cfg: composed configuration.
        folder: the run folder; to resume it, `cfg.resume` is the same.

    Returns:
        Best value of the monitored metric, for sweepers; None if there was no validation.

    Raises:
        ZooError: invalid configuration or data; nothing was trained, and the folder is removed.
    """
    run, is_rank_zero = RunFolder(folder), rank_zero_only.rank == 0  # type: ignore[attr-defined]
    quiet_lightning()
    if cfg.resume:
        run.config()  # an error if it is not a run
    if is_rank_zero:
        run.acquire_lock(resume=bool(cfg.resume))
    try:
        return _train(cfg, run, is_rank_zero)
    finally:
        run.release_lock()


def _train(cfg: DictConfig, run: RunFolder, is_rank_zero: bool) -> float | None:
    """Train in a locked folder."""
    try:
        context, origin = prepare(cfg, run, is_rank_zero)
        if cfg.tune is not None:
            tune(context)
            run.clean_up()
            return None
        trainer = build_trainer(context)
        context.data.check_batches(trainer.world_size)
        warm_start.warn_of_random_weights(cfg)
    except BaseException:
        if is_rank_zero and not cfg.resume:
            run.clean_up()
        raise
    before = run.config()["trainer"].get("max_steps") if cfg.resume else None
    if is_rank_zero and cfg.resume:
        resume.prepare_resume(cfg, run, context.start, typed_overrides(cfg))
    print_header(context, trainer)
    if origin:
        print_lines(context.console, {"from": warm_start.describe(origin)})
    del origin
    if cfg.resume:
        print_lines(context.console, resume.describe(context.start, before, cfg.trainer.max_steps))
    try:
        fit_trainer(context, trainer)
    except StopRequested as stop:
        again = f"{stop}, after saving a checkpoint. Resume with: {train_command(f'resume={run.folder}')}"
        context.console.print(again, highlight=False, soft_wrap=True, markup=False)
        raise SystemExit(128 + stop.number) from None
    best = finish(context, trainer) if trainer.is_global_zero else None
    del trainer, context  # sweeps run many jobs in one process
    gc.collect()
    return best


def prepare(cfg: DictConfig, run: RunFolder, is_rank_zero: bool) -> tuple[TrainingContext, warm_start.WarmStart | None]:
    """Build the data and the model, and find the checkpoint to start from.

    Raises:
        ZooError: invalid value.
    """
    origin, parts = warm_start.find_warm_start(cfg, run), find_parts(cfg, run)
    if not isinstance(cfg.seed, int) or not 0 <= cfg.seed < 2**32:
        raise ConfigError(f"seed={cfg.seed}: not a seed. Give an integer from 0 to {2**32 - 1}.")
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    data = build_data(cfg, origin)
    if not cfg.resume:
        limit_epochs(cfg.model.training, len(data.train[0]) / data.batch_size)
    if is_rank_zero and not cfg.resume and cfg.tune is None:
        run.write_config(cfg, typed_overrides(cfg))  # from here on, a killed run can be resumed
    console = Console(quiet=not is_rank_zero)
    if cfg.tune is None and (told := check_memory(cfg, data)):
        console.print(f"[bold]memory[/bold]   {told}", highlight=False, soft_wrap=True)
    model = build_model(cfg, data, origin, parts)
    start = resume.find_resume_point(cfg, run, model, data) if cfg.resume else None
    return TrainingContext(cfg, run, model, data, console, start, is_rank_zero), origin


def fit_trainer(context: TrainingContext, trainer: L.Trainer) -> None:
    """Run the trainer; explain failures in one sentence.

    Raises:
        ZooError: disk or memory full, or values not finite.
        StopRequested: a signal, after a checkpoint.
    """
    start = context.start
    try:
        data = context.model.loaded(context.data)
        trainer.fit(context.model, datamodule=data, ckpt_path=str(start.path) if start else None, weights_only=True)
    except StopRequested:
        raise
    except Exception as error:
        explained = None if isinstance(error, ZooError) else explain_failure(error, context, trainer)
        if explained is None:
            raise
        raise explained from None


def build_data(cfg: DictConfig, origin: warm_start.WarmStart | None = None) -> DataModule:
    """Build the datamodule, and read its data.

    A recipe's batch size is limited to a quarter of the training set, and `cfg.data.batch_size` is updated. A size that
    the user gives for the data stays.
    """
    data: DataModule = registry.build("data", to_plain(cfg.data), where="data")
    if origin:
        warm_start.adopt_tokenizer(origin, data)
    if OmegaConf.is_interpolation(cfg.data, "batch_size"):  # the recipe's
        data.limit_batch_size(data.batch_size)
        cfg.data.batch_size = data.batch_size
    data.setup()
    return data


def limit_epochs(training: DictConfig, batches_per_epoch: float) -> None:
    """Lower a recipe's batches to `max_epochs`, and its validation interval in proportion.

    Settings of the user for the trainer stay: they do not refer to the recipe.

    Raises:
        ConfigError: the limit is negative, or too large to count.
    """
    if training.max_epochs < 0:
        raise ConfigError(f"model.training.max_epochs={training.max_epochs}: negative. Give 0 for no limit, or more.")
    check_integer("model.training.max_epochs", training.max_epochs)
    most = max(round(training.max_epochs * batches_per_epoch), 1)
    if training.max_epochs and most < training.max_steps:
        training.val_check_interval = max(training.val_check_interval * most // training.max_steps, 1)
        training.max_steps = most


def build_model(
    cfg: DictConfig,
    data: DataModule,
    origin: warm_start.WarmStart | None = None,
    parts: list[warm_start.WarmStart] | None = None,
) -> Model:
    """Build the model for these data, with the weights of pretrained models."""
    settings = {key: value for key, value in to_plain(cfg.model).items() if key != "training"}
    spec = data.spec
    check_fits_in_memory(lambda: registry.build("model", settings, spec, where="model"))
    model: Model = registry.build("model", settings, spec, where="model")
    data.check_model(model)
    if origin:
        warm_start.load_initial_weights(origin, model)
    load_parts(parts or [], model)
    return model
