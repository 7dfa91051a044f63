"""Checks of `trainer.*` before training: names and types by the signature of Lightning's Trainer."""

import difflib
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytorch_lightning as L

from zoo.core.errors import ConfigError
from zoo.core.registry import unknown_name_message
from zoo.core.signature import check_integer

OWN: dict[str, Any] = {  # settings of the zoo, which Lightning does not get
    "max_steps": int,
    "compile": bool | str,
    "tf32": bool,
    "fast_loop": bool,
    "checkpoint_every": int | None,
    "on_nonfinite": Literal["stop", "skip"],
}
COUNTS = ("max_steps", "val_check_interval", "checkpoint_every", "log_every_n_steps", "accumulate_grad_batches")
# Settings of Lightning that the zoo sets itself, or that would contradict the header of a run, each with its remedy.
_LENGTH = "Training is counted in batches: use trainer.max_steps"
REPLACED = {
    **dict.fromkeys(("max_epochs", "min_epochs", "min_steps", "max_time"), _LENGTH),
    "limit_train_batches": f"{_LENGTH}, or give fewer data",
    "overfit_batches": "Give fewer data",
    "fast_dev_run": "Use trainer=smoke",
    "check_val_every_n_epoch": "Use trainer.val_check_interval, in batches",
    "num_sanity_val_steps": "Use trainer=smoke to try a configuration",
    "reload_dataloaders_every_n_epochs": "Leave it out",
    "use_distributed_sampler": "Leave it out: samples are distributed",
    "logger": "Choose logger=NAME; TensorBoard and metrics.csv are always written",
    "callbacks": "Choose callbacks=NAME",
    "profiler": "Choose profiler=NAME",
    "plugins": "Leave it out",
    "default_root_dir": "Use hydra.run.dir=FOLDER",
    "enable_checkpointing": "Use trainer.checkpoint_every; a run is always saved",
    "enable_model_summary": "Choose callbacks=model_summary",
    "enable_progress_bar": "Leave it out; from Python, zoo.fit(progress=False)",
    "barebones": "Use zoo bench to measure the speed",
}
_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", type(None): "null"}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check the names and types of trainer settings; objects from Python are left to Lightning.

    Raises:
        ConfigError: an unknown setting, one that the zoo sets itself, or a value of another type.
    """
    hints = {k: v for k, v in get_type_hints(L.Trainer.__init__).items() if k != "return"} | OWN
    for key, value in settings.items():
        if key in REPLACED:
            raise ConfigError(f"trainer.{key}={value}: not a setting of this trainer. {REPLACED[key]}.")
        if key not in hints:
            have = sorted(hints.keys() - REPLACED.keys())
            raise ConfigError(f"trainer.{key}={value}: {unknown_name_message('setting', key, have)}.")
        if key in COUNTS:
            check_count(key, value)
        elif not _fits(value, hints[key]):
            options = _literals(hints[key])
            close = difflib.get_close_matches(str(value), map(str, options), n=1)
            hint = f"Did you mean {close[0]}? " if close else ""
            kinds = [_WORDS[kind] for kind in _plain(hints[key])]
            kinds += [f"one of {', '.join(map(str, options))}"] if options else []
            raise ConfigError(f"trainer.{key}={value}: a wrong value. {hint}Give {' or '.join(kinds)}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"trainer.{key}={value}: not a finite number. Give a finite one.")
        check_integer(f"trainer.{key}", value)
    if settings.get("limit_val_batches") == 0:
        raise ConfigError("trainer.limit_val_batches=0: runs are saved after validations. Give at least 1.")
    if (clip := settings.get("gradient_clip_val")) is not None and clip < 0:
        raise ConfigError(f"trainer.gradient_clip_val={clip}: a norm of gradients. Give at least 0.")


def check_count(key: str, value: Any) -> None:
    """Check a number of batches; null is Lightning's own default, except for the length.

    Raises:
        ConfigError: not an integer of at least 1.
    """
    if value is None and key != "max_steps":
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"trainer.{key}={value}: not a number of batches. Give an integer of at least 1.")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has the type of an annotation. Other objects fit."""
    kinds, options = _plain(hint), _literals(hint)
    if isinstance(value, list):
        return any(get_origin(part) is list for part in _parts(hint))
    if type(value) not in _WORDS or type(value) in kinds:
        return True
    return (type(value) is int and float in kinds) or (value in options and not isinstance(value, bool))


def _parts(hint: Any) -> list[Any]:
    """Members of a union."""
    if get_origin(hint) in (Union, types.UnionType):
        return [part for member in get_args(hint) for part in _parts(member)]
    return [hint]


def _plain(hint: Any) -> list[type]:
    return [part for part in _parts(hint) if part in _WORDS]


def _literals(hint: Any) -> list[Any]:
    return [choice for part in _parts(hint) if get_origin(part) is Literal for choice in get_args(part)]
