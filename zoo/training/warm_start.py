"""Initialise a training from another one: `init_from=RUN`.

A hyperparameter that is annotated as `Component("model", pretrained=True)` becomes the model of RUN. A model without
such a setting takes the weights of RUN, which must be of the same model. It also takes the settings of its networks.
Data of text take the tokenizer of RUN.

`first_stage=RUN` trains the chosen model on the latents of RUN. It becomes the prior of the registered model that
has a pretrained setting of this name.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from zoo.config.compose import compose, to_plain, typed_overrides
from zoo.config.recipes import recipes
from zoo.core import registry
from zoo.core.errors import CheckpointError, ConfigError
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.listing import log_rank0
from zoo.data.text.datamodule import TokenizedData
from zoo.interop.loading import load_for_warm_start
from zoo.io.vetting import state_dict_mismatches
from zoo.models.abilities import SupportsWarmStart
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.runs.checkpoint import latest_intact, read_checkpoint
from zoo.runs.folder import RunFolder

log = logging.getLogger(__name__)
FREE = ("dropout",)  # settings of networks that do not change what the weights compute


@dataclass(frozen=True)
class WarmStart:
    """The pretrained model that a training is initialised from.

    Args:
        option: the key that names it: init_from or first_stage.
        place: value of this key.
        spec: the data that the model was trained on; of a resumed run, the data of the run.
        model: the model; None where a checkpoint of the resumed run contains the weights.
    """

    option: str
    place: str
    spec: DataSpec
    model: Model | None


def pretrained_setting(name: str) -> str | None:
    """The hyperparameter of a registered model that `init_from` sets; None if there is none."""
    settings = registry.peek("model", name).settings if name in registry.names("model") else ()
    return next((setting.name for setting in settings if setting.pretrained), None)


def warn_of_random_weights(cfg: DictConfig) -> None:
    """Warn of a new run whose pretrained setting has no pretrained model."""
    setting = pretrained_setting(str(cfg.model.name))
    if setting and not cfg.resume and cfg.init_from is None and cfg.first_stage is None:
        option = setting if setting in cfg else "init_from"
        message = f"model.{setting}: begins with random weights. Set {option}=RUN to begin with a trained model."
        log_rank0(log.warning, message)


def find_warm_start(cfg: DictConfig, run: RunFolder) -> WarmStart | None:
    """Load the model that `cfg.init_from` or `cfg.first_stage` names, and enter it in a pretrained setting, if any.

    A resumed run does not need it: its own checkpoint contains everything.

    Raises:
        CheckpointError: not a trained model, or one that does not fit.
        ConfigError: both keys are given.
    """
    option = "init_from" if cfg.first_stage is None else "first_stage"
    if cfg[option] is None:
        return None
    place = str(cfg[option])
    if option == "first_stage":
        enter_prior(cfg, option)
    wanted = str(cfg.model.name)
    setting = pretrained_setting(wanted)
    own = latest_intact(run) if cfg.resume else None
    if own is not None:
        spec = DataSpec.from_dict(read_checkpoint(own)["zoo"]["spec"])
        if setting:
            saved = run.config()["model"].get(setting)
            OmegaConf.update(cfg, f"model.{setting}", saved, merge=False, force_add=True)
        else:
            adopt_settings(cfg, run.config()["model"], place)
        adopt_data(cfg, option, spec)
        return WarmStart(option, place, spec, None)
    if cfg.resume and "://" in place:  # a run folder is untrusted
        raise CheckpointError(
            f"resume={run.folder}: no checkpoint, and {option}={place} is an address. Start a new run."
        )
    model = load_for_warm_start(place)
    name = model.registered_name
    if setting:
        if typed := [o for o in typed_overrides(cfg) if re.match(rf"\+{{0,2}}model[./]{setting}\b", o)]:
            raise CheckpointError(f"{option}={place}: sets model.{setting}, and so does {typed[0]}. Remove one.")
        value = {"name": name, **model.hparams}
        OmegaConf.update(cfg, f"model.{setting}", value, merge=False, force_add=True)
    elif name != wanted:
        raise CheckpointError(
            f"init_from={place}: holds a {name}, whose weights do not fit model={wanted}. Take model={name}, or a "
            f"model that fine-tunes others, such as {', '.join(fine_tuners())}."
        )
    else:
        adopt_settings(cfg, model.hparams, place)
    adopt_data(cfg, option, model.spec)
    return WarmStart(option, place, model.spec, model)


def enter_prior(cfg: DictConfig, option: str) -> None:
    """Make `cfg.model` a setting of the model that has a pretrained setting named as the option.

    Raises:
        ConfigError: init_from is given too.
    """
    if cfg.init_from is not None:
        raise ConfigError(f"init_from={cfg.init_from}: not together with {option}={cfg[option]}. Leave one out.")
    whole = next(name for name in registry.names("model") if pretrained_setting(name) == option)
    if cfg.model.name != whole:
        part = next(s.name for s in registry.peek("model", whole).settings if s.part == "model" and not s.pretrained)
        settings = {key: value for key, value in to_plain(cfg.model).items() if key != "training"}
        model = OmegaConf.create({"name": whole, part: settings, "training": cfg.model.training})
        OmegaConf.update(cfg, "model", model, merge=False)


def adopt_data(cfg: DictConfig, option: str, spec: DataSpec) -> None:
    """Take the data that a first stage was trained on, unless others are given: a recipe's data are for data space."""
    typed = typed_overrides(cfg)
    if option == "first_stage" and spec.name in recipes("data") and not any(o.startswith("data=") for o in typed):
        data = compose(*typed, f"data={spec.name}").data
        OmegaConf.update(cfg, "data", data, merge=False)


def adopt_settings(cfg: DictConfig, origin: Mapping[str, Any], place: str) -> None:
    """Enter the settings of a pretrained model in `cfg.model`: its networks, and its sizes where none are given.

    The optimizer and the objective stay, which the new training chooses.

    Raises:
        CheckpointError: a setting of a network that was given differs from that of the pretrained model.
    """
    for setting in registry.peek("model", str(cfg.model.name)).settings:
        name, place_in = setting.name, f"model.{setting.name}"
        if setting.part == "optimizer" or name not in origin:
            continue
        asked, value = OmegaConf.select(cfg, place_in), origin[name]
        asked = OmegaConf.to_container(asked) if OmegaConf.is_config(asked) else asked
        if setting.part:
            asked, value = complete(setting.part, asked), complete(setting.part, value)
            for key in typed_keys(cfg, name):
                if key not in FREE and asked.get(key) != value.get(key):
                    raise CheckpointError(
                        f"{place_in}.{key}={asked.get(key)}: the weights of init_from={place} were trained with "
                        f"{value.get(key)}. Leave it out."
                    )
            value |= {key: asked[key] for key in FREE if key in asked and key in value and key in typed_keys(cfg, name)}
        elif type(value) is not int or asked != setting.default or typed_keys(cfg, name):
            continue
        OmegaConf.update(cfg, place_in, value, merge=False, force_add=True)


def complete(kind: str, chosen: Any) -> dict[str, Any]:
    """A component with the defaults of all settings that are not given."""
    chosen = {"name": chosen} if isinstance(chosen, str) else dict(chosen)
    return {s.name: s.default for s in registry.peek(kind, chosen["name"]).settings} | chosen


def typed_keys(cfg: DictConfig, setting: str) -> list[str]:
    """Keys of a component that an override sets; "name" for the component itself, or for a plain setting."""
    found = (re.match(rf"[+~]{{0,2}}model[./]{setting}(?:\.(\w+))?(?:=|$)", word) for word in typed_overrides(cfg))
    return [match[1] or "name" for match in found if match]


def fine_tuners() -> list[str]:
    """Registered models with a pretrained setting."""
    return [n for n in registry.names("model") if any(s.pretrained for s in registry.peek("model", n).settings)]


def adopt_tokenizer(origin: WarmStart, data: DataModule) -> None:
    """Set the tokenizer of data that are not read yet to that of the pretrained model.

    Raises:
        CheckpointError: the data are not text, or the model does not have a tokenizer.
    """
    if not origin.spec.text:
        return
    if not isinstance(data, TokenizedData):
        raise CheckpointError(
            f"{origin.option}={origin.place}: trained on {origin.spec}, but data={data.registered_name} is not text. "
            f"Choose data of text."
        )
    data.use_tokenizer_from(origin.spec)


def load_initial_weights(origin: WarmStart, model: Model) -> None:
    """Load the pretrained weights into a new model, or into its pretrained component.

    Raises:
        CheckpointError: they do not fit.
    """
    if origin.model is None:
        return
    weights = origin.model.state_dict()
    if supports(model, SupportsWarmStart):
        check_compatible(origin, model.pretrained_state(), weights)
        model.load_pretrained(weights)
        return
    setting = pretrained_setting(model.registered_name)
    module: nn.Module = getattr(model, setting) if setting else model
    if isinstance(module, Model):
        module.resize_buffers_like(weights)
    check_compatible(origin, module.state_dict(), weights)
    module.load_state_dict(weights)


def check_compatible(origin: WarmStart, wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Compare the names and shapes of weights.

    Raises:
        CheckpointError: they differ.
    """
    if wrong := state_dict_mismatches(wanted, weights):
        context = f", data.context={origin.spec.size}" if origin.spec.text else ""
        raise CheckpointError(
            f"{origin.option}={origin.place}: its weights, trained on {origin.spec}, do not fit this model: {wrong}. "
            f"Give the same settings{context}."
        )


def describe(origin: WarmStart) -> str:
    """Place, model and data, for the console."""
    what = "" if origin.model is None else f": {origin.model.registered_name} of {origin.spec}"
    return origin.place + what
