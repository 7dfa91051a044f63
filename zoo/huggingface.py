"""Models of the Hugging Face format, in and out: GPT-2, Llama, BERT and T5 as models of the zoo.

A folder holds `config.json`, `model.safetensors` (in one file or in several with an index) and `tokenizer.json`. What
corresponds to what is a table for each architecture; the code that follows it is the same in both directions.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import registry
from zoo.architectures import ARCHITECTURES, Architecture, Weights
from zoo.data.pretrained import FILE, Pretrained, as_pretrained
from zoo.data.tokenizers import dumps
from zoo.errors import ZooError
from zoo.models.base import GenerativeModel
from zoo.spec import DataSpec
from zoo.weights import refuse_giant
from zoo.whole import replacing, write_text

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOLERANCE = 1e-4  # of logits


# -- in -------------------------------------------------------------------------------------------------------------


def is_folder(path: str | Path) -> bool:
    """Does a path name a folder in the Hugging Face format?"""
    return (Path(path) / CONFIG).is_file()


def load(folder: str | Path) -> GenerativeModel:
    """The model in a folder of the Hugging Face format, as one of the zoo's, in eval mode; nothing in it is executed.

    Raises:
        ZooError: an architecture or a setting that the zoo does not have; files that are missing, damaged, or do not
            match.
    """
    folder = Path(folder).expanduser()
    config = _json(folder / CONFIG)
    if isinstance(config.get("rope_theta"), (int, float)):  # as it was written before version 5
        config.setdefault("rope_parameters", {"rope_theta": config["rope_theta"], "rope_type": "default"})
    architecture = _chosen(folder, config)
    settings = _settings(architecture, config, folder)
    tokenizer, size = None, _number(config, "vocab_size", folder)
    if (folder / FILE).is_file():
        tokenizer = Pretrained(path=str(folder)).of_size(size)
    key, default = architecture.context
    context = default if config.get(key) is None else _number(config, key, folder)
    spec = DataSpec(
        architecture.data,
        (context,),
        vocab_size=size,
        tokenizer=dumps(tokenizer) if tokenizer else "",
        name=folder.resolve().name,
    )
    refuse_giant(lambda: registry.build("model", settings, spec, where=str(folder)))
    model: GenerativeModel = registry.build("model", settings, spec, where=str(folder))
    theirs = {k.removeprefix(architecture.prefix): w.float() for k, w in _weights(folder)}
    theirs = {k: w for k, w in theirs.items() if not re.match(architecture.ignored, k)}
    try:
        theirs = architecture.arrive(theirs, config, tokenizer)
    except KeyError as error:
        raise ZooError(f"{folder} lacks the weights {error.args[0]}: it is no {architecture.name}.") from error
    model.load_state_dict(_translated(architecture, theirs, model, folder))
    return model.eval()


def _chosen(folder: Path, config: Mapping[str, Any]) -> Architecture:
    kind = config.get("model_type")
    for architecture in ARCHITECTURES:
        if architecture.kind == kind:
            return architecture
    have = [a.kind for a in ARCHITECTURES]
    raise ZooError(f"{folder} holds {registry.unknown('architecture', str(kind), have)}.")


def _settings(architecture: Architecture, config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Our hyperparameters from their config."""
    for key, values in architecture.says.items():
        if (told := _at(config, key)) is not None and told not in values:
            raise ZooError(
                f"{folder / CONFIG} says {key}={told!r}, which the zoo's {architecture.model} does not have: it can "
                f"follow {' or '.join(map(repr, values))}."
            )
    settings: dict[str, Any] = {"name": architecture.model, **architecture.ours}
    known = {s.name: s for s in registry.settings(registry.get("model", architecture.model))}
    for ours, theirs in architecture.sizes.items():
        told = _at(config, theirs)
        if told is not None:
            settings[ours] = told
        elif ours in ("d_model", "n_layers", "n_heads"):
            raise ZooError(f"{folder / CONFIG} does not say {theirs}: it is damaged.")
        elif known[ours].type is int:
            settings[ours] = 4 * settings["d_model"] if ours == "d_ff" else 0
    settings |= architecture.settle(config)
    width, heads, own = settings["d_model"], settings["n_heads"], config.get("head_dim")
    if own is not None and own * heads != width:
        raise ZooError(
            f"{folder / CONFIG} says head_dim={own}: the zoo's {architecture.model} has heads of {width // heads} only."
        )
    return settings


def _translated(architecture: Architecture, theirs: Weights, model: GenerativeModel, folder: Path) -> Weights:
    """Their weights under our names.

    Raises:
        ZooError: some are missing, left over, or of other sizes.
    """
    wanted, found = model.state_dict(), Weights()
    rest = dict(theirs)
    for ours, name, turned in _rows(architecture, wanted):
        if name not in rest:
            raise ZooError(f"{folder} lacks the weights {architecture.prefix}{name}: it is no {architecture.name}.")
        whole = rest.pop(name)
        parts = (whole.T if turned and whole.ndim == 2 else whole).chunk(len(ours))
        found |= dict(zip(ours, (part.contiguous() for part in parts), strict=True))
    if rest:
        raise ZooError(f"{folder} has weights that a {architecture.name} does not have: {', '.join(sorted(rest)[:5])}.")
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise ZooError(
                f"{folder}: {name} would be {tuple(found[name].shape)}, but {CONFIG} makes it {tuple(tensor.shape)}."
            )
    return found


def _rows(architecture: Architecture, wanted: Mapping[str, Tensor]) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """The table with the numbers of layers filled in: our names, their name, and whether it is turned."""
    for same in architecture.weights:
        names = (same.ours,) if isinstance(same.ours, str) else same.ours
        for i in range(10_000):
            ours = tuple(name.format(i) for name in names)
            if ours[0] not in wanted:
                break
            yield ours, same.theirs.format(i), same.turned
            if ours == names:
                break


def _weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a folder."""
    from safetensors import SafetensorError, safe_open

    names = [WEIGHTS]
    if (folder / INDEX).is_file():
        told = _json(folder / INDEX).get("weight_map")
        names = sorted({str(name) for name in told.values()}) if isinstance(told, dict) else []
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            old = " (pytorch_model.bin is not read, as it can hold code: save it as safetensors)"
            raise ZooError(f"{folder} has no {name}{old if (folder / 'pytorch_model.bin').exists() else ''}.")
        try:
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - not a dict
                    yield key, file.get_tensor(key)
        except SafetensorError as error:
            raise ZooError(f"{folder / name} cannot be read ({error}): it is damaged.") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ZooError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}).") from error
    if not isinstance(told, dict):
        raise ZooError(f"{path} is no JSON object: it is damaged.")
    return told


def _at(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _number(config: Mapping[str, Any], key: str, folder: Path) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise ZooError(f"{folder / CONFIG} says {key}={value!r}: it must be a whole number from 1.")
    return value


# -- out ------------------------------------------------------------------------------------------------------------


def save(model: GenerativeModel, folder: str | Path) -> Path:
    """Write a model in the Hugging Face format, for their library to load.

    A tokenizer that came from there goes back as it was; the zoo's own byte-pair tokenizer is written as one of
    theirs.

    Args:
        model: of an architecture in the table.
        folder: made if it is not there.

    Raises:
        ZooError: none of their architectures has the model's settings.
    """
    from safetensors.torch import save as as_bytes

    folder = Path(folder)
    architecture = _expressible(model)
    tokenizer = getattr(model, "tokenizer", None)
    own = tokenizer if isinstance(tokenizer, Pretrained) else None
    config = _config(architecture, model, tokenizer)
    ours, theirs = model.state_dict(), Weights()
    for names, name, turned in _rows(architecture, ours):
        whole = torch.cat([ours[n] for n in names])
        theirs[name] = (whole.T if turned and whole.ndim == 2 else whole).contiguous().clone()
    theirs = {f"{architecture.prefix}{k}": w for k, w in architecture.leave(theirs, config, own).items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    if tokenizer is not None:
        _save_tokenizer(tokenizer, folder)
    with replacing(folder / WEIGHTS) as draft:
        draft.write_bytes(as_bytes(theirs, metadata={"format": "pt"}))
    return folder


def export(run: Path, out: Path | None = None) -> Path:
    """Write a run's best weights in the Hugging Face format, read them again, and print how to use them.

    Of a fine-tuned model the policy is written, adapters merged.

    Args:
        run: run folder, checkpoint, or a folder of that format.
        out: the folder; None is `export/huggingface` in the run's folder.

    Raises:
        ZooError: see `save`; or what was written gives other logits, and is gone again.
    """
    from zoo.origin import trained  # which reads these folders too

    model = trained(str(run))
    where = out or (run if run.is_dir() else run.parent) / "export" / "huggingface"
    if where.exists() and (not where.is_dir() or any(where.iterdir())):
        raise ZooError(f"{where} holds something already: remove it, or name another folder by --out.")
    save(model, where)
    off = _difference(model, load(where))
    if not off <= TOLERANCE:
        shutil.rmtree(where)
        raise ZooError(f"what was written of {run} gives logits that differ by {off:.1e}: it was not kept. Report it.")
    print(f"{where}: its logits differ from the model's by at most {off:.1e}")
    name = json.loads((where / CONFIG).read_text())["architectures"][0]
    print(f"import transformers\n\nmodel = transformers.{name}.from_pretrained({json.dumps(str(where))})")
    return where


@torch.no_grad()
def _difference(one: GenerativeModel, two: GenerativeModel) -> float:
    """The largest difference of two models' logits on some tokens."""
    tokens = torch.arange(min(one.spec.dim, 64)).remainder(one.spec.vocab_size)[None]
    given = (tokens, tokens) if one.spec.kind == "pair" else (tokens,)
    a, b = ((m if m.registered_name == "bert" else m.net)(*given) for m in (one, two))  # type: ignore[operator]
    return float((a - b).abs().max())


def _expressible(model: GenerativeModel) -> Architecture:
    reasons = []
    for architecture in ARCHITECTURES:
        if architecture.model != model.registered_name:
            continue
        off = [f"{k}={model.hparams[k]}" for k, v in architecture.ours.items() if model.hparams[k] != v]
        off += [f"{k}={v}" for k, v in model.hparams.items() if k in NEVER and v]
        if not off and model.spec.kind == architecture.data:
            return architecture
        reasons.append(f"{architecture.kind} has not {', '.join(off) or model.spec.kind}")
    why = "; ".join(reasons) or f"{', '.join(dict.fromkeys(a.model for a in ARCHITECTURES))} can have one"
    raise ZooError(f"this {model.registered_name} has no counterpart in the Hugging Face format: {why}.")


NEVER = ("window", "documents", "softcap", "logit_softcap")  # settings that none of the architectures has


def _config(architecture: Architecture, model: GenerativeModel, tokenizer: Any) -> dict[str, Any]:
    config: dict[str, Any] = {"architectures": [architecture.name], "model_type": architecture.kind}
    size = model.spec.vocab_size
    filled = {k: v for k, v in model.hparams.items() if k in architecture.sizes}
    if "d_ff" in filled and not filled["d_ff"]:
        filled["d_ff"] = next(w for n, w in model.state_dict().items() if n.endswith("mlp.up.weight")).shape[0]
    if "n_kv_heads" in filled and not filled["n_kv_heads"]:
        filled["n_kv_heads"] = filled["n_heads"]
    if "norm_eps" in filled and not filled["norm_eps"]:
        filled["norm_eps"] = 1e-5 if model.hparams["norm"] == "layernorm" else torch.finfo(torch.float32).eps
    values = {architecture.sizes[k]: v for k, v in filled.items()} | architecture.tell(model.hparams)
    values |= {key: choices[0] for key, choices in architecture.says.items() if key not in values}
    values |= {architecture.context[0]: model.spec.dim, "vocab_size": size, "dtype": "float32"}
    if tokenizer is not None:
        values |= {"bos_token_id": tokenizer.begin, "eos_token_id": tokenizer.end}
    for key, value in values.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return config


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """As a tokenizer.json, with the names of its special tokens beside it."""
    text, special = as_pretrained(tokenizer)
    write_text(folder / FILE, text)
    told = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    write_text(folder / "tokenizer_config.json", json.dumps(told, indent=2) + "\n")
