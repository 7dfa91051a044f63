"""Experiment trackers, in addition to TensorBoard and CSV.

Addresses and keys are environment variables of the trackers (WANDB_API_KEY, MLFLOW_TRACKING_URI, COMET_API_KEY), so
that a recipe cannot send results to another server.
"""

from typing import Any

from pytorch_lightning.loggers import CometLogger, Logger, MLFlowLogger, WandbLogger

from zoo.config.compose import to_plain
from zoo.config.flatten import flatten
from zoo.core.errors import ConfigError
from zoo.core.registry import register
from zoo.training.context import TrainingContext


@register("logger", "wandb")
def wandb(
    context: TrainingContext,
    *,
    project: str = "zoo",
    run_name: str | None = None,
    group: str | None = None,
    offline: bool = False,
) -> Logger:
    """Weights & Biases (`pip install wandb`).

    Args:
        project: group of runs on the server.
        run_name: title; the run folder's name by default.
        group: runs that belong together.
        offline: write to disk only; `wandb sync` uploads.
    """
    name, folder = run_name or context.run.folder.name, context.run.folder
    return _external(
        "wandb", WandbLogger, context, name=name, project=project, group=group, offline=offline, dir=folder
    )


@register("logger", "mlflow")
def mlflow(context: TrainingContext, *, experiment: str = "zoo", run_name: str | None = None) -> Logger:
    """MLflow (`pip install mlflow`); the server is MLFLOW_TRACKING_URI, else the folder ./mlruns.

    Args:
        experiment: group of runs on the server.
        run_name: title; the run folder's name by default.
    """
    name = run_name or context.run.folder.name
    return _external("mlflow", MLFlowLogger, context, experiment_name=experiment, run_name=name)


@register("logger", "comet")
def comet(
    context: TrainingContext, *, project: str = "zoo", run_name: str | None = None, online: bool = True
) -> Logger:
    """Comet (`pip install comet-ml`).

    Args:
        project: group of runs on the server.
        run_name: title; the run folder's name by default.
        online: send immediately; false writes to disk only.
    """
    name = run_name or context.run.folder.name
    return _external("comet", CometLogger, context, project=project, name=name, online=online)


def _external(extra: str, logger: type[Logger], context: TrainingContext, **options: Any) -> Logger:
    """Build one of Lightning's loggers, and log the configuration as hyperparameters.

    Raises:
        ConfigError: its package is not installed.
    """
    try:
        built = logger(**options)
    except ModuleNotFoundError:
        package = {"comet": "comet-ml"}.get(extra, extra)
        raise ConfigError(f"logger={extra}: its package is not installed. Run `pip install {package}`.") from None
    settings = {group: to_plain(context.cfg[group]) for group in ("model", "data", "trainer")}
    built.log_hyperparams({**flatten(settings), "seed": context.cfg.seed})
    return built
