"""Bundle a trained model: weights in one safetensors file, configuration, samples, model card, and a manifest."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from zoo.config.overrides import unquoted
from zoo.config.sandbox import refuse_links
from zoo.core import registry
from zoo.core.errors import CheckpointError
from zoo.hub import manifest
from zoo.hub.card import write_card
from zoo.hub.manifest import Manifest
from zoo.io.atomic import sha256, write_bytes, write_text
from zoo.io.safe_yaml import read_yaml
from zoo.io.weights_file import pack
from zoo.models.base import Model
from zoo.runs.checkpoint import batches_trained, find_checkpoint, read_checkpoint, restore_model
from zoo.runs.folder import RunFolder

CONFIG = ("model", "data", "trainer", "seed", "init_from", "first_stage")  # keys that are published
FACT = re.compile(r"# ([\w-]+): (.*)")  # a line of a run's configuration
PACKAGES = ("zoo", "torch", "pytorch-lightning", "python")


def bundle(run: Path, folder: Path, name: str, *, half: bool = False, licence: str | None = None) -> Manifest:
    """Write a run's best weights (or a checkpoint) and its facts into an empty folder.

    A folder that was pulled is copied without a change, so its version keeps its identifier.

    Args:
        run: run folder, checkpoint in one, or a folder that `zoo pull` has written.
        folder: an empty one.
        name: of the published model.
        half: store weights in half precision, and integers in few bytes; numbers that it cannot hold stay as they are.
        licence: of the training data; None is that of the data set, if it is known.

    Raises:
        CheckpointError: not a run, or the file does not restore the model.
    """
    refuse_links(run if run.is_dir() else run.parent)
    if (run / manifest.FILE).is_file() and not half and licence is None:
        known = manifest.read(run)
        manifest.verify(known, run)
        for file in known.files:
            write_bytes(folder / file, (run / file).read_bytes())
        write_bytes(folder / manifest.FILE, known.to_bytes())
        return known
    source = find_checkpoint(run)
    home = RunFolder(source.parent)
    config, checkpoint = home.config(), read_checkpoint(source)
    model = restore_model(checkpoint, source)
    weights = halved(model.state_dict()) if half else model.state_dict()
    note = {**model.note(), "hyper_parameters": dict(model.hparams), "batches": batches_trained(checkpoint)}
    write_bytes(folder / manifest.WEIGHTS, pack(weights, note, narrow=half))
    check_restored(folder / manifest.WEIGHTS, weights)
    published = {key: without_folders(config[key]) for key in CONFIG if key in config}
    write_text(folder / "config.yaml", yaml.safe_dump(published, sort_keys=False))
    copy_samples(home, folder)
    found = replace(describe(model, source, name), dtype="float16" if half else "float32")
    found = replace(found, files=manifest.digests(folder), licence=found.licence if licence is None else licence)
    return seal(found, folder)


def seal(found: Manifest, folder: Path) -> Manifest:
    """Write the model card and the manifest of a folder, with the digests of its files."""
    write_card(found, folder)
    sealed = replace(found, files=manifest.digests(folder))
    write_bytes(folder / manifest.FILE, sealed.to_bytes())
    return sealed


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float16; integers, and tensors with numbers beyond its range, stay as they are."""
    limit = torch.finfo(torch.float16).max
    fits = {name: x.is_floating_point() and not bool((x.abs() > limit).any()) for name, x in state.items()}
    return {name: x.half() if fits[name] else x for name, x in state.items()}


def check_restored(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Check that a model from a file has the weights that were written.

    Raises:
        CheckpointError: it does not.
    """
    restored = restore_model(read_checkpoint(file), file).state_dict()
    wrong = [name for name, x in weights.items() if not torch.equal(restored[name], x.to(restored[name].dtype))]
    if wrong or restored.keys() != weights.keys():
        raise CheckpointError(f"{file}: does not restore {', '.join(wrong[:3])}. Please report it.")


def copy_samples(run: RunFolder, folder: Path) -> None:
    """Copy the final samples of a run: a picture, or texts."""
    names = ((run.samples / "final.png", manifest.PICTURE), (run.samples / "final.txt", manifest.TEXTS))
    for file, name in (*names, *((run.folder / name, name) for name in (manifest.PICTURE, manifest.TEXTS))):
        if file.is_file():
            write_bytes(folder / name, file.read_bytes())


def describe(model: Model, source: Path, name: str) -> Manifest:
    """Facts of a model and its run. A checkpoint without a run folder leaves out those of the training.

    Args:
        model: restored from the checkpoint.
        source: the checkpoint.
        name: of the published model.
    """
    home = RunFolder(source.parent)
    if (home.folder / manifest.FILE).is_file():
        return replace(manifest.read(home.folder), name=name, source="")
    config: dict[str, Any] = home.config() if home.config_file.is_file() else {}
    facts = dict(FACT.findall(home.config_file.read_text(encoding="utf-8", errors="replace"))) if config else {}
    data, seed = model.spec.name, config.get("seed", 0)
    known = registry.get("data", data) if data in registry.names("data") else None
    measured = metrics_of(source)
    return Manifest(
        name=name,
        model=model.registered_name,
        data=data,
        space=model.spec.x.registered_name,
        summary=f"{recipe_of(home) or model.registered_name} on {model.spec}",
        licence=getattr(known, "licence", ""),
        abilities=tuple(model.abilities),
        command=command_of(home),
        seed=seed if isinstance(seed, int) else 0,
        commit=facts.get("commit", ""),
        versions={package: facts[package] for package in PACKAGES if package in facts},
        hardware=facts.get("hardware", ""),
        batches=batches_trained(read_checkpoint(source)),
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        init_from=without_folders(str(config.get("init_from") or config.get("first_stage") or "")),
        protocol=measured.get("protocol", {}),
        metrics=measured.get("metrics", {}),
    )


def metrics_of(source: Path) -> dict[str, Any]:
    """Results of `zoo evaluate` for exactly this file; empty if there are none."""
    file = source.with_name("metrics.json")
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get(source.name, {}) if file.is_file() else {}
        return dict(found) if found.get("sha256") == sha256(source) else {}
    except (ValueError, AttributeError):
        raise CheckpointError(f"{file}: damaged. Remove it, and measure again by `zoo evaluate`.") from None


def words_of(run: RunFolder) -> list[str]:
    """Overrides that trained a run, without settings of Hydra; empty if it was trained from Python."""
    words = read_yaml(run.overrides_file) if run.overrides_file.is_file() else []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise CheckpointError(f"{run.overrides_file}: damaged, not a list of overrides. Choose another run.")
    return [unquoted(word) for word in words if not word.lstrip("+~").startswith("hydra")]


def command_of(run: RunFolder) -> str:
    """Command that trained a run; empty if it was trained from Python."""
    words = words_of(run)
    return shlex.join(["python", "train.py", *map(without_folders, words)]) if words else ""


def recipe_of(run: RunFolder) -> str:
    """Recipe that a run was trained with; empty for the default one, and for that of an experiment."""
    chosen = dict(word.split("=", 1) for word in words_of(run) if "=" in word)
    return chosen.get("model", "")


def without_folders(value: Any) -> Any:
    """Replace absolute paths by their last part, also in nested values: they describe a machine."""
    if isinstance(value, dict):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_folders(each) for each in value]
    if not isinstance(value, str):
        return value
    front, equals, path = value.rpartition("=")
    return f"{front}{equals}{path.rstrip('/').rpartition('/')[2]}" if path.startswith(("/", "~")) else value
