"""Load models from folders of the Hugging Face format: GPT-2, Llama, BERT and T5.

A folder contains `config.json`, `model.safetensors` (one file, or several with an index) and `tokenizer.json`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.core import registry
from zoo.core.cache import user_path
from zoo.core.errors import CheckpointError
from zoo.core.spaces import Pair, Tokens
from zoo.core.spec import DataSpec
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.pretrained import FILE, Pretrained
from zoo.interop.huggingface.architectures import ARCHITECTURES, Architecture, Weights
from zoo.io.vetting import check_fits_in_memory
from zoo.models.base import Model

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


def is_folder(path: str | Path) -> bool:
    """Whether a path is a folder in the Hugging Face format."""
    return (Path(path) / CONFIG).is_file()


def load(folder: str | Path) -> Model:
    """Load the model of a folder in the Hugging Face format, in eval mode. No code of the folder is executed.

    Raises:
        CheckpointError: an unsupported architecture or setting; files that are missing, damaged, or do not match.
    """
    folder = user_path(folder)
    config = _json(folder / CONFIG)
    if isinstance(config.get("rope_theta"), (int, float)):  # files of versions before 5
        config.setdefault("rope_parameters", {"rope_theta": config["rope_theta"], "rope_type": "default"})
    architecture = _chosen(folder, config)
    settings = _settings(architecture, config, folder)
    tokenizer, size = None, _number(config, "vocab_size", folder)
    if (folder / FILE).is_file():
        tokenizer = Pretrained(path=str(folder)).of_size(size)
    key, default = architecture.context
    context = default if config.get(key) is None else _number(config, key, folder)
    text = Tokens(context, size, dumps(tokenizer) if tokenizer else "")
    spec = DataSpec(Pair(text, text) if architecture.data is Pair else text, name=folder.resolve().name)
    check_fits_in_memory(lambda: registry.build("model", settings, spec, where=str(folder)))
    model: Model = registry.build("model", settings, spec, where=str(folder))
    theirs = {k.removeprefix(architecture.prefix): w.float() for k, w in _weights(folder)}
    theirs = {k: w for k, w in theirs.items() if not re.match(architecture.ignored, k)}
    try:
        theirs = architecture.import_weights(theirs, config, tokenizer)
    except KeyError as error:
        raise CheckpointError(f"{folder}: not a {architecture.name}; weights {error.args[0]} are missing.") from error
    model.load_state_dict(_translated(architecture, theirs, model, folder))
    return model.eval()


def _chosen(folder: Path, config: Mapping[str, Any]) -> Architecture:
    kind = config.get("model_type")
    for architecture in ARCHITECTURES:
        if architecture.kind == kind:
            return architecture
    have = [a.kind for a in ARCHITECTURES]
    raise CheckpointError(f"{folder} holds {registry.unknown_name_message('architecture', str(kind), have)}.")


def _settings(architecture: Architecture, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Read our hyperparameters from config.json."""
    for key, values in architecture.required_config.items():
        if (value := _at(config, key)) is not None and value not in values:
            raise CheckpointError(
                f"{folder / CONFIG}: {key}={value!r} is not supported by {architecture.model}. "
                f"Supported: {' or '.join(map(repr, values))}."
            )
    settings: dict[str, Any] = {"name": architecture.model, **architecture.fixed_hparams}
    sizes: dict[str, Any] = {}  # by the last part of our dotted names
    for ours, theirs in architecture.sizes.items():
        name, value = ours.rpartition(".")[2], _at(config, theirs)
        if value is None and name in ("d_model", "n_layers", "n_heads"):
            raise CheckpointError(f"{folder / CONFIG} is damaged: {theirs} is missing.")
        if value is None and name in ("d_ff", "n_kv_heads"):
            value = 4 * sizes["d_model"] if name == "d_ff" else 0
        if value is not None:
            settings[ours] = sizes[name] = value
    settings |= architecture.import_config(config)
    width, heads, own = sizes["d_model"], sizes["n_heads"], config.get("head_dim")
    if own is not None and own * heads != width:
        raise CheckpointError(
            f"{folder / CONFIG}: head_dim={own} is not supported by {architecture.model}. Supported: {width // heads}."
        )
    return _nested(settings)


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert dotted keys to nested dictionaries."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        node = nested
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return nested


def _translated(architecture: Architecture, theirs: Weights, model: Model, folder: Path) -> Weights:
    """Rename their weights.

    Raises:
        CheckpointError: weights are missing, unexpected, or of other shapes.
    """
    wanted, found = model.state_dict(), Weights()
    rest = dict(theirs)
    for ours, name, transposed in _rows(architecture, wanted):
        if name not in rest:
            raise CheckpointError(
                f"{folder}: not a {architecture.name}; weights {architecture.prefix}{name} are missing."
            )
        whole = rest.pop(name)
        parts = (whole.T if transposed and whole.ndim == 2 else whole).chunk(len(ours))
        found |= dict(zip(ours, (part.contiguous() for part in parts), strict=True))
    if rest:
        raise CheckpointError(f"{folder}: not a {architecture.name}; unexpected weights {', '.join(sorted(rest)[:5])}.")
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise CheckpointError(
                f"{folder}: {name} has shape {tuple(found[name].shape)}, but by {CONFIG} it is {tuple(tensor.shape)}."
            )
    return found


def _rows(architecture: Architecture, wanted: Mapping[str, Tensor]) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """Expand the mapping over layers: our names, their name, and whether it is transposed."""
    for same in architecture.weights:
        names = (same.ours,) if isinstance(same.ours, str) else same.ours
        for i in range(10_000):
            ours = tuple(name.format(i) for name in names)
            if ours[0] not in wanted:
                break
            yield ours, same.theirs.format(i), same.transposed
            if ours == names:
                break


def _weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the tensors of a folder."""
    from safetensors import SafetensorError, safe_open

    names = [WEIGHTS]
    if (folder / INDEX).is_file():
        value = _json(folder / INDEX).get("weight_map")
        names = sorted({str(name) for name in value.values()}) if isinstance(value, dict) else []
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            old = " (pytorch_model.bin can contain code: convert it to safetensors)"
            raise CheckpointError(f"{folder} has no {name}{old if (folder / 'pytorch_model.bin').exists() else ''}.")
        try:
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - not a dict
                    yield key, file.get_tensor(key)
        except SafetensorError as error:
            raise CheckpointError(f"{folder / name} is damaged: {error}.") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}).") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: not a JSON object.")
    return value


def _at(config: Mapping[str, Any], key: str) -> Any:
    """Value at a dotted key; None if it is missing."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _number(config: Mapping[str, Any], key: str, folder: Path) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{folder / CONFIG}: {key}={value!r} is not an integer of at least 1.")
    return value
