"""Errors of Hydra and OmegaConf in one sentence, with the nearest existing name."""

import re
from typing import Any

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from zoo.config.flatten import flatten
from zoo.config.recipes import recipes, registered_name
from zoo.core.command import train_command
from zoo.core.errors import ConfigError, ZooError
from zoo.core.registry import unknown_name_message

USER_ERRORS = (ZooError, HydraException, OmegaConfBaseException, OSError)  # mistakes in a request, not defects
PACKAGES = {  # plug-ins that Hydra's authors publish
    **{f"hydra/sweeper={name}": f"hydra-{name}-sweeper" for name in ("optuna", "ax", "nevergrad")},
    **{f"hydra/launcher={name}": f"hydra-{name}-launcher" for name in ("joblib", "ray", "rq")},
    **{f"hydra/launcher=submitit_{where}": "hydra-submitit-launcher" for where in ("local", "slurm")},
}
# A recipe's setting of another component.
FOREIGN = r"In '(\w+)/(\w+)': .*Key '(\w+)' not in '(\w+)'\s+full_key: ([\w.]+)"


def to_user_error(error: Exception) -> Exception:
    """Translate an error of composition to a `ZooError`; any other exception is returned unchanged."""
    if isinstance(error, ZooError) or not isinstance(error, USER_ERRORS):
        return error
    if isinstance(error.__cause__, ZooError):  # raised by a resolver, or while a recipe was read
        return error.__cause__
    if isinstance(error, InstantiationException) and (reason := failed_import(error)):
        return ZooError(f"a library cannot be imported ({reason}). Install it again, or free memory if it did not fit.")
    if isinstance(error, OSError) and not isinstance(error, HydraException):  # MissingConfigException is both
        place = f" ({error.filename})" if error.filename else ""
        reason = (error.strerror or str(error)).lower()
        return ConfigError(
            f"{reason}{place}: a run needs a folder that it can write to and room on the disk. "
            f"What was saved before is whole: see resume=RUN in `{train_command('--help')}`."
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        options = [o for o in error.options or [] if o != "schema"]
        if f"{group}={name}" in PACKAGES:
            return ConfigError(f"{group}={name}: needs the package {PACKAGES[f'{group}={name}']}. Install it.")
        unknown = unknown_name_message(group.rpartition("/")[2] or "--config-name", name, options)
        return ConfigError(f"{unknown}. {f'Use {group}=NAME' if group else 'Leave it out'}.")
    if isinstance(error, OverrideParseException):
        return ConfigError(
            f"cannot read the override {error.override!r}: write key=value, and quote what a shell would split."
        )
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = str(getattr(cause, "full_key", None) or getattr(cause, "key", None) or "")
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and not isinstance(cause, InterpolationKeyError):
        node, leaf = getattr(cause, "parent_node", None), key.rpartition(".")[2]
        have = sorted(str(k) for k in node if k not in ("training", "name", "hydra")) if node is not None else []
        if "/" in leaf:
            return ConfigError(
                f"there is no {leaf} to choose here: `{train_command('--help')}` lists the groups, of which each model "
                f"has some."
            )
        group = key.rpartition(".")[0] or "the configuration"
        if node is not None and leaf not in have and (there := _nested(node._get_root(), leaf)):
            return ConfigError(f"{key}: no such setting. Did you mean {there}?")
        return ConfigError(f"{group}: {unknown_name_message('setting', leaf, have)}.")
    if isinstance(cause, ValidationError):
        what = str(cause).splitlines()[0].rstrip(".")
        return ConfigError(f"{key or 'the configuration'} has a value of the wrong type: {what}. {remedy(what, key)}")
    if isinstance(cause, MissingMandatoryValue):
        return ConfigError(f"{key} needs a value: give it as {key}=VALUE.")
    if match := re.search(FOREIGN, str(error), re.DOTALL):
        choice, recipe, missing, component, place = match.groups()
        general = registered_name(recipe, recipes(choice).get(recipe))
        return ConfigError(
            f"{choice}={recipe} sets {place}, but {component} has no {missing}. "
            f"Take {choice}={general}, or a recipe for {component}."
        )
    match = re.search(r"Could not override '([^']+)'", str(error))
    if match and "No match in the defaults list" in str(error):
        return ConfigError(
            f"nothing here is called {match[1]}: `{train_command('--help')}` lists the groups that can be chosen."
        )
    return ConfigError(" ".join(str(error).split()))


def failed_import(error: BaseException) -> str:
    """The reason of the import that failed first, in the causes of an error; empty if there was none."""
    reason, cause = "", error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, ImportError) and str(cause).strip():
            reason = str(cause).strip().splitlines()[0].rstrip(".")
        cause = cause.__cause__ or cause.__context__
    return reason


def remedy(problem: str, key: str) -> str:
    """The remedy for a value of the wrong type, from the message of OmegaConf."""
    kind = re.search(r"converted to (\w+)|Incompatible value", problem)
    words = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false"}
    return f"Give {words.get(kind[1] if kind else '', 'another value')}: {key or 'KEY'}=VALUE."


def _nested(config: Any, leaf: str) -> str | None:
    """Find a setting deeper in the configuration: `lr` -> "model.optimizer.lr"; those of the model come first.

    A recipe's `model.training` holds defaults of settings that are given elsewhere, such as `trainer.max_steps`.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    places = flatten(plain) if isinstance(plain, dict) else {}
    found = [place for place in places if place.endswith(f".{leaf}") and not place.startswith("model.training.")]
    return min(found, key=lambda place: (not place.startswith("model."), place.count(".")), default=None)
