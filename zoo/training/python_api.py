"""Train from Python: `zoo.fit("vae", x)`."""

import json
import tempfile
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as L
from omegaconf import open_dict
from pytorch_lightning.loggers import Logger
from rich.console import Console
from torch.utils.data import DataLoader

from zoo.config.compose import compose
from zoo.core.errors import ConfigError, DataError
from zoo.data.base import DataModule
from zoo.data.in_memory import as_datamodule
from zoo.models.base import Model
from zoo.runs.folder import RunFolder
from zoo.training.callbacks.graceful_stop import StopRequested
from zoo.training.context import TrainingContext
from zoo.training.pretrained_parts import find_parts
from zoo.training.resume import find_resume_point, prepare_resume
from zoo.training.summary import finish
from zoo.training.train import build_data, build_model, fit_trainer, limit_epochs
from zoo.training.trainer import build_trainer, quiet_lightning
from zoo.training.trainer_settings import check_settings
from zoo.training.warm_start import find_warm_start, warn_of_random_weights


def fit(
    model: str | Model,
    data: Any,
    *,
    max_steps: int | None = None,
    batch_size: int | None = None,
    first_stage: str | Path | None = None,
    callbacks: str | L.Callback | Iterable[str | L.Callback] = (),
    logger: str | Logger | Iterable[str | Logger] = (),
    folder: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    progress: bool = True,
    **trainer_options: Any,
) -> Model:
    """Train a model, and return it with its best weights in eval mode.

    Args:
        model: a recipe's name (`zoo.list_models()`), or a model.
        data: a name (`zoo.list_data()`), a tensor (N, C, H, W) or (N, D), an array, a pair (x, labels), a torch
            Dataset or DataLoader, or a `zoo.DataModule`.
        max_steps: batches; the recipe's by default.
        batch_size: samples per batch; the recipe's by default, at most a quarter of the training data.
        first_stage: run or checkpoint whose latents the model, a recipe's name, learns.
        callbacks: registered names, or Lightning callbacks.
        logger: registered names, or Lightning loggers, in addition to TensorBoard and CSV.
        folder: new run folder for checkpoints, metrics and samples (`zoo.load(folder)`); None saves nothing.
        resume: continue the run in `folder`, with the same arguments; without effect if it does not exist yet.
        seed: of weights, noise and data order; seeds the global generators.
        progress: show progress.
        **trainer_options: keys of `trainer` (`checkpoint_every=100`) and of Lightning's Trainer (`precision=...`).

    Raises:
        ZooError: invalid name, setting or data.
        KeyboardInterrupt: interrupted, after a checkpoint in `folder`.
    """
    quiet_lightning()
    added_callbacks, chosen_callbacks = _separate(callbacks)
    added_loggers, chosen_loggers = _separate(logger)
    name = model if isinstance(model, str) else model.registered_name
    plain = {k: v for k, v in trainer_options.items() if isinstance(v, (bool, int, float, str, list, type(None)))}
    objects = {k: v for k, v in trainer_options.items() if k not in plain}
    if max_steps is not None:
        plain["max_steps"] = max_steps
    check_settings(trainer_options)
    words = [f"model={name}", f"callbacks=[{chosen_callbacks}]", f"logger=[{chosen_loggers}]", f"seed={seed}"]
    words += [f"++trainer.{key}={json.dumps(value)}" for key, value in plain.items()]
    if isinstance(data, str):
        words += [f"data={data}", *([f"data.batch_size={batch_size}"] if batch_size else [])]
    if first_stage is not None:
        if not isinstance(model, str):
            raise ConfigError(f"first_stage={first_stage}: the model is built already. Give the name of a recipe.")
        words.append(f"first_stage={first_stage}")
    cfg = compose(*words)
    if cfg.trainer.get("strategy") == "fsdp":
        raise ConfigError("strategy=fsdp: zoo.fit returns a whole model. Run `python train.py trainer=fsdp`.")
    before = RunFolder(folder or "")
    origin, parts = find_warm_start(cfg, before), find_parts(cfg, before)
    named = isinstance(model, str) and isinstance(data, str)
    overrides = words if named and not (added_callbacks or added_loggers or objects) else None
    L.seed_everything(seed, workers=True, verbose=False)
    module = build_data(cfg) if isinstance(data, str) else _data(data, batch_size, cfg.model.training.batch_size, seed)
    module.setup()
    limit_epochs(cfg.model.training, len(module.train[0]) / module.batch_size)
    with open_dict(cfg):
        if not isinstance(data, str):
            cfg.data = {"name": module.registered_name, "batch_size": module.batch_size, "seed": module.seed}
        if not isinstance(model, str):
            cfg.model = {"name": name, **model.hparams, "training": cfg.model.training}
    with tempfile.TemporaryDirectory(prefix="zoo-") if folder is None else nullcontext(str(folder)) as place:
        run = RunFolder(place)
        resume = resume and run.config_file.is_file()
        run.acquire_lock(resume)
        try:
            if not resume:
                run.write_config(cfg, overrides)
            built = build_model(cfg, module, origin, parts) if isinstance(model, str) else model
            if built.spec != module.spec:
                raise DataError(f"data={module.spec}: the model was built for {built.spec}. Build it for these data.")
            start = find_resume_point(cfg, run, built, module) if resume else None
            console = Console(quiet=not progress)
            context = TrainingContext(
                cfg, run, built, module, console, start,
                callbacks=added_callbacks, loggers=added_loggers, options=objects,
            )  # fmt: skip
            trainer = build_trainer(context)
            if isinstance(model, str):
                warn_of_random_weights(cfg)
            if resume:
                prepare_resume(cfg, run, start, overrides)
            fit_trainer(context, trainer)
            context.console = Console(quiet=not progress or folder is None)
            finish(context, trainer)
        except StopRequested as stop:
            again = f"Call zoo.fit(..., folder={str(folder)!r}, resume=True)" if folder else "Give folder= to keep it"
            raise KeyboardInterrupt(f"{stop}. {again}.") from None
        finally:
            run.release_lock()
    return built.eval()


def _separate(given: Any) -> tuple[list[Any], str]:
    """Separate objects from registered names."""
    items = [given] if isinstance(given, (str, L.Callback, Logger)) else list(given)
    return [item for item in items if not isinstance(item, str)], ",".join(i for i in items if isinstance(i, str))


def _data(data: Any, batch_size: int | None, usual: int, seed: int) -> DataModule:
    """Build the datamodule of objects; the default batch size is the recipe's, at most a quarter of the data."""
    module = as_datamodule(data, batch_size, seed)
    module.setup()
    if batch_size is None and not isinstance(data, (DataModule, DataLoader)):
        module.limit_batch_size(usual)
    return module
