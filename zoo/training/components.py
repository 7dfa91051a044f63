"""Build callbacks and loggers from the registry and the configuration."""

import inspect
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as L
from pytorch_lightning.loggers import Logger

from zoo.config.compose import to_plain
from zoo.core import registry
from zoo.core.errors import ConfigError
from zoo.training.callbacks.graceful_stop import GracefulStop
from zoo.training.callbacks.max_batches import StopAfterBatches
from zoo.training.callbacks.progress import ProgressBar
from zoo.training.callbacks.rng_state import RNGState
from zoo.training.callbacks.throughput import StatsMonitor
from zoo.training.context import TrainingContext


def build_callbacks(context: TrainingContext) -> list[L.Callback]:
    """Build all callbacks, in the order in which Lightning calls them.

    A registered callback is added if its `applies(model, data)` returns true. `callbacks=[NAME, ...]` adds others, and
    `+callbacks.NAME=null` removes one. The checkpointer is last, so that it saves the state of all others.

    Raises:
        ConfigError: an unknown callback or setting.
    """
    batches, checkpointer = context.cfg.trainer.max_steps, context.checkpointer
    return [
        StopAfterBatches(batches),
        RNGState(),
        GracefulStop(checkpointer),
        StatsMonitor(),
        checkpointer.guard,
        *registered_callbacks(context),
        *context.callbacks,
        ProgressBar(batches, context.console),
        checkpointer,
    ]


def registered_callbacks(context: TrainingContext) -> list[L.Callback]:
    """Build the callbacks that apply to this model and data, then those of the configuration.

    Raises:
        ConfigError: an unknown callback or setting.
    """
    chosen = to_plain(context.cfg.callbacks)
    if half_life := context.cfg.model.training.ema_halflife:
        chosen = {"ema": {"half_life": half_life}} | chosen
    automatic = [
        name
        for name in registry.names("callback")
        if "applies" in registry.peek("callback", name).methods
        and name not in chosen
        and registry.get("callback", name).applies(context.model, context.data)  # type: ignore[attr-defined]
    ]
    settings: dict[str, Any] = {name: {} for name in automatic}
    settings |= {name: values for name, values in chosen.items() if values is not None}
    return [build_component("callback", name, values, context) for name, values in settings.items()]


def build_loggers(context: TrainingContext) -> list[Logger]:
    """Build the loggers: TensorBoard and metrics.csv, then those of `logger=[NAME, ...]`.

    Raises:
        ConfigError: an unknown logger or setting, or a logger whose package is not installed.
    """
    chosen = {name: values for name, values in to_plain(context.cfg.logger).items() if values is not None}
    own = context.run.loggers(context.start.batches if context.start else None)
    trackers = [build_component("logger", name, values, context) for name, values in chosen.items()]
    return [*own, *trackers, *context.loggers]


def build_component(kind: str, name: str, settings: Mapping[str, Any], context: TrainingContext) -> Any:
    """Build a registered callback or logger, from the context if it has a positional parameter."""
    where = f"{GROUPS[kind]}.{name}"
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{where}={settings}: not a mapping of settings. Write {where}.KEY=VALUE.")
    config = {"name": name, **settings}
    if config["name"] not in registry.names(kind):
        raise ConfigError(f"{where}: {registry.unknown_name_message(kind, config['name'], registry.names(kind))}.")
    parameters = inspect.signature(registry.get(kind, config["name"])).parameters.values()
    takes_context = any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    return registry.build(kind, config, *([context] if takes_context else []), where=where)


GROUPS = {"callback": "callbacks", "logger": "logger"}  # registry category -> config group
