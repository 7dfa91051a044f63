"""Look-up from Python: what there is, what it is, and building it as the command line would."""

import fnmatch
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from zoo import registry
from zoo.errors import ZooError
from zoo.recipes import header, recipes, registered_name, summary
from zoo.spec import DataSpec

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from zoo.data.base import DataModule
    from zoo.models.base import GenerativeModel


def list_models(pattern: str = "*") -> list[str]:
    """Names that can follow `model=`, by shell wildcard, sorted: recipes and registered classes."""
    return fnmatch.filter(recipes("model"), pattern)


def list_data(pattern: str = "*") -> dict[str, str]:
    """Names that can follow `data=`, by shell wildcard, with a line on each."""
    have = recipes("data")
    return {name: summary("data", name, have[name]) for name in fnmatch.filter(have, pattern)}


def create_data(name: str, **overrides: Any) -> "DataModule":
    """The datamodule of a recipe, its data not yet read: `create_data("mnist", batch_size=128)`.

    Raises:
        ZooError: unknown name or setting, or a value that does not fit.
    """
    from zoo import config

    cfg = config.compose(f"data={name}", *_overrides("data", overrides))
    return registry.build("data", config.plain(cfg.data), where="data")


def create_model(name: str, data: str | DataSpec = "digits", **overrides: Any) -> "GenerativeModel":
    """An untrained model, the same as `python train.py model=NAME data=DATA` builds.

    Args:
        name: a recipe or registered model.
        data: a datamodule's name, or the spec of data of your own.
        **overrides: hyperparameters; a network by name (`generator="resnet"`) or as a mapping of its settings
            (`generator={"name": "resnet", "width": 64}`).

    Raises:
        ZooError: unknown name or setting, a value that does not fit, or data that the model cannot learn.
    """
    from zoo import config

    source = [f"data={data}"] if isinstance(data, str) else []
    cfg = config.compose(f"model={name}", *source, *_overrides("model", overrides))
    spec = registry.build("data", config.plain(cfg.data), where="data").spec if isinstance(data, str) else data
    settings = {k: v for k, v in config.plain(cfg.model).items() if k != "recipe"}
    return registry.build("model", settings, spec, where="model")


@dataclass(frozen=True)
class ModelInfo:
    """What `zoo info` prints."""

    name: str
    summary: str  # one line
    paper: str  # link, or nothing
    family: str
    registered: str  # name of the class
    accepts: tuple[str, ...]  # kinds of data
    abilities: tuple[str, ...]

    @cached_property
    def settings(self) -> "DictConfig":
        """Everything under `model.`, with the recipe's values."""
        settings: DictConfig = self._composed.model
        return settings

    @property
    def data(self) -> str:
        """What it learns from when nothing else is said."""
        return str(self._composed.data.name)

    @cached_property
    def _composed(self) -> "DictConfig":
        from zoo import config

        return config.compose(f"model={self.name}")

    def describe(self) -> str:
        """Several lines for a terminal."""
        from omegaconf import OmegaConf

        lines = [f"{self.name}: {self.summary}"]
        rows = {"family": self.family, "paper": self.paper, "learns": ", ".join(self.accepts)}
        rows |= {"can": ", ".join(self.abilities), "data": f"{self.data} unless data=NAME says otherwise"}
        lines += [f"  {key:<8} {text}" for key, text in rows.items() if text]
        lines.append("  settings (model.KEY=VALUE)")
        lines += [f"    {line}" for line in OmegaConf.to_yaml(self.settings).splitlines()]
        lines.append(f"  train it: python train.py model={self.name}")
        return "\n".join(lines)


def model_info(name: str) -> ModelInfo:
    """Facts about a model, without building it.

    Raises:
        ZooError: unknown name.
    """
    have = recipes("model")
    if name not in have:
        raise ZooError(f"{registry.unknown('model', name, list(have))}.")
    registered = registered_name(name, have[name])
    target: Any = registry.look("model", registered)
    text = (have[name] and header(have[name])) or f"{target.__doc__} {target.paper}"
    arxiv = re.search(r"\b(\d{4}\.\d{4,5})\b", text)
    return ModelInfo(
        name=name,
        summary=summary("model", name, have[name]),
        paper=f"https://arxiv.org/abs/{arxiv[1]}" if arxiv else "",
        family=target.family,
        registered=registered,
        accepts=tuple(target.accepts),
        abilities=_abilities(target),
    )


ABILITIES = {  # method of the protocols in zoo.models.base -> what a user calls it
    "sample": "sample",
    "log_prob": "exact likelihood",
    "bound": "likelihood bound",
    "reconstruct": "reconstruct",
    "interpolate": "interpolate",
    "generate": "continue text",
}


def _abilities(target: type) -> tuple[str, ...]:
    return tuple(what for method, what in ABILITIES.items() if callable(getattr(target, method, None)))


def tables() -> str:
    """All models and data as Markdown: README holds this, and a test compares."""
    rows = ["| model | what it is | learns | can |", "|---|---|---|---|"]
    infos = [model_info(name) for name in list_models()]
    for info in sorted(infos, key=lambda i: (i.family, i.name != i.registered, i.name)):
        paper = f" ([paper]({info.paper}))" if info.paper.startswith("https") else ""
        rows.append(
            f"| `{info.name}` | {info.summary}{paper} | {', '.join(info.accepts)} | {', '.join(info.abilities)} |"
        )
    rows += ["", "| data | what it is |", "|---|---|"]
    rows += [f"| `{name}` | {summary} |" for name, summary in list_data().items()]
    return "\n".join(rows)


def _overrides(kind: str, values: dict[str, Any]) -> list[str]:
    """Python keyword arguments as Hydra overrides, which check names and types."""
    from zoo import config

    found = []
    for key, value in values.items():
        chooses = config.is_choice(kind, key)
        if chooses and isinstance(value, dict):
            value = dict(value)
            if "name" in value:
                found.append(f"{kind}/{key}={value.pop('name')}")
            found += [f"{kind}.{key}.{k}={_literal(v)}" for k, v in value.items()]
        elif chooses:
            found.append(f"{kind}/{key}={value}")
        else:
            found.append(f"{kind}.{key}={_literal(value)}")
    return found


def _literal(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_literal, value)) + "]"
    return json.dumps(value)
