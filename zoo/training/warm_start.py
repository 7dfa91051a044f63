"""Beginning with what another training ended with: `init_from=RUN`.

A stage of fine-tuning (a model with the setting `policy`) takes the model that RUN holds as its policy, adapters
merged; any other model takes the weights of one of its own kind. Text goes on in the tokenizer that it was learned in.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from zoo.core.errors import CheckpointError
from zoo.core.spaces import Tokens
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.text.datamodule import TokenizedData
from zoo.interop.loading import load_for_warm_start
from zoo.io.vetting import state_dict_mismatches
from zoo.models.base import Model
from zoo.models.finetuning.base import FineTuned
from zoo.runs.checkpoint import latest_intact, read_checkpoint
from zoo.runs.folder import RunFolder


@dataclass(frozen=True)
class WarmStart:
    """What a training begins with.

    Args:
        place: what `init_from` says.
        spec: the data that its model was trained on; of a run that is resumed, that of the run itself.
        model: the model; None where a checkpoint of the run itself holds the weights.
    """

    place: str
    spec: DataSpec
    model: Model | None


def find_warm_start(cfg: DictConfig, run: RunFolder) -> WarmStart | None:
    """Read what `cfg.init_from` names, if anything, and enter its model in `cfg.model.policy`, where there is one.

    A run that is resumed has all of it in its own checkpoint; what it began with may be gone.

    Raises:
        CheckpointError: nothing is there, or it is nothing that this model could begin with.
    """
    if cfg.init_from is None:
        return None
    place, stage = str(cfg.init_from), "policy" in cfg.model
    own = latest_intact(run) if cfg.resume else None
    if own is not None:
        if stage:
            OmegaConf.update(cfg, "model.policy", run.config()["model"].get("policy"), merge=False, force_add=True)
        return WarmStart(place, DataSpec.from_dict(read_checkpoint(own)["zoo"]["spec"]), None)
    model = load_for_warm_start(place)
    name, wanted = model.registered_name, str(cfg.model.name)
    if stage:
        if not isinstance(model.spec.x, Tokens):
            raise CheckpointError(
                f"init_from={place} holds a {name} of {model.spec}, but model={wanted} tunes models of text: "
                f"name a run of one, such as gpt."
            )
        if typed := [o for o in overrides() if re.match(r"\+{0,2}model[./]policy\b", o)]:
            raise CheckpointError(
                f"init_from={place} says what the policy is, and {typed[0]} another: leave one of them out."
            )
        OmegaConf.update(cfg, "model.policy", {"name": name, **model.hparams}, merge=False, force_add=True)
    elif name != wanted:
        raise CheckpointError(
            f"init_from={place} holds a {name}, whose weights model={wanted} cannot begin with: take model={name}, or "
            f"a stage of fine-tuning (sft, dpo, grpo) where it is a model of text."
        )
    return WarmStart(place, model.spec, model)


def overrides() -> list[str]:
    """What was typed, where Hydra runs."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def adopt_tokenizer(origin: WarmStart, data: DataModule) -> None:
    """Have the data, not yet read, use the tokenizer of the model that is begun with.

    Raises:
        CheckpointError: they are no text, or it has no tokenizer.
    """
    if not origin.spec.text:
        return
    if not isinstance(data, TokenizedData):
        raise CheckpointError(
            f"init_from={origin.place} was trained on {origin.spec}, but data={data.registered_name} is no text that "
            f"its tokenizer could read: choose data of text."
        )
    data.use_tokenizer_from(origin.spec)


def load_initial_weights(origin: WarmStart, model: Model) -> None:
    """Give a new model the weights that it begins with.

    Raises:
        CheckpointError: they do not fit; it says which.
    """
    if origin.model is None:
        return
    weights = origin.model.state_dict()
    if isinstance(model, FineTuned):
        check_compatible(origin, model.origin_state(), weights)
        model.start_from(weights)
        return
    model.resize_buffers_like(weights)
    check_compatible(origin, model.state_dict(), weights)
    model.load_state_dict(weights)


def check_compatible(origin: WarmStart, wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Raise `ZooError` where weights are not those that are wanted."""
    if wrong := state_dict_mismatches(wanted, weights):
        context = f", data.context={origin.spec.size}" if origin.spec.text else ""
        raise CheckpointError(
            f"init_from={origin.place} was trained on {origin.spec}, and its weights do not fit the model of this run: "
            f"{wrong}; give the same settings{context}."
        )


def describe(origin: WarmStart) -> str:
    """For the lines that say what will run."""
    what = "" if origin.model is None else f": {origin.model.registered_name} of {origin.spec}"
    return str(Path(origin.place)) + what
