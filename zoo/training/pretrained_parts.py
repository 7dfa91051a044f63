"""Further trained models inside a model: `model.SETTING=RUN`.

`init_from=RUN` sets the first hyperparameter that is annotated as `Component("model", pretrained=True)`. A value of
another one that is not the name of a registered model is a run, a checkpoint or a published model.
"""

from omegaconf import DictConfig, OmegaConf

from zoo.core import registry
from zoo.core.errors import CheckpointError
from zoo.interop.loading import load
from zoo.models.base import Model
from zoo.runs.checkpoint import latest_intact
from zoo.runs.folder import RunFolder
from zoo.training.warm_start import WarmStart, check_compatible


def find_parts(cfg: DictConfig, run: RunFolder) -> list[WarmStart]:
    """Load the trained models that settings of `cfg.model` name, and enter their settings in `cfg.model`.

    The checkpoint of a resumed run contains their weights, and its configuration their settings.

    Raises:
        CheckpointError: not a trained model, or an address in a run folder without a checkpoint.
    """
    name = str(cfg.model.name)
    known = registry.names("model")
    settings = registry.peek("model", name).settings if name in known else ()
    found = []
    for setting in [s.name for s in settings if s.pretrained][1:]:
        place, key = OmegaConf.select(cfg, f"model.{setting}"), f"model.{setting}"
        if not isinstance(place, str) or place in known:
            continue
        if cfg.resume and latest_intact(run) is not None:
            OmegaConf.update(cfg, key, run.config()["model"].get(setting), merge=False, force_add=True)
            continue
        if cfg.resume and "://" in place:  # a run folder is untrusted
            reason = f"no checkpoint, and {key}={place} is an address"
            raise CheckpointError(f"resume={run.folder}: {reason}. Start a new run.")
        model = load(place)
        OmegaConf.update(cfg, key, {"name": model.registered_name, **model.hparams}, merge=False, force_add=True)
        found.append(WarmStart(key, place, model.spec, model))
    return found


def load_parts(parts: list[WarmStart], model: Model) -> None:
    """Load the weights of trained models into the components of a new model.

    Raises:
        CheckpointError: they do not fit, or read other tokens.
    """
    for part in parts:
        assert part.model is not None
        if part.spec.text and model.spec.text and part.spec.tokens.tokenizer != model.spec.tokens.tokenizer:
            raise CheckpointError(
                f"{part.option}={part.place}: has another tokenizer. Train both from the same pretrained model."
            )
        component: Model = getattr(model, part.option.removeprefix("model."))
        component.resize_buffers_like(part.model.state_dict())
        check_compatible(part, component.state_dict(), part.model.state_dict())
        component.load_state_dict(part.model.state_dict())
