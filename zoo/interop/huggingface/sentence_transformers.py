"""Folders of sentence-transformers: an encoder, its pooling to one vector per text, and the vector's length.

`modules.json` lists the parts, each with a folder. The first is the encoder, in the Hugging Face format.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.core.errors import CheckpointError
from zoo.interop.huggingface.json_file import read_json

MODULES, PROMPTS, LIMIT = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
PARTS = ("Transformer", "Pooling", "Normalize")
POOLING = {"mean": "mean", "cls": "first", "max": "max"}  # theirs -> ours
OLD_POOLING = {  # keys of older files, true or false
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def read_modules(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Folder of the encoder, and settings of `bert` about its vectors; `embedded_tokens` is 0 if it is not given.

    Raises:
        CheckpointError: an unsupported module or setting.
    """
    entries = read_json(folder / MODULES, list)
    kinds, places = [], []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise CheckpointError(f"{folder / MODULES} is damaged: an entry has no type.")
        path = Path(str(entry.get("path", "")))
        if path.is_absolute() or ".." in path.parts:
            raise CheckpointError(f"{folder / MODULES}: path={str(path)!r} is outside of the folder.")
        kinds.append(entry["type"].rpartition(".")[2])
        places.append(folder / path)
    if other := [kind for kind in kinds if kind not in PARTS]:
        raise CheckpointError(f"{folder / MODULES}: {other[0]} is not supported. Supported: {', '.join(PARTS)}.")
    if kinds not in (list(PARTS), list(PARTS[:2])):
        raise CheckpointError(
            f"{folder / MODULES}: {', '.join(kinds) or 'no parts'}. Supported: {', '.join(PARTS)} in this order, the "
            "last of which may be absent."
        )
    settings = {"pooling": _pooling(places[1] / "config.json"), "normalize": len(kinds) == len(PARTS)}
    if settings["normalize"] and (places[2] / "config.json").is_file():
        for key, value in read_json(places[2] / "config.json").items():
            if value not in (None, "sentence_embedding"):
                _refuse(places[2] / "config.json", key, value, "sentence_embedding")
    prompts = _optional(folder / PROMPTS)
    default = prompts.get("default_prompt_name")
    if default is not None and dict(prompts.get("prompts") or {}).get(default):
        _refuse(folder / PROMPTS, "default_prompt_name", default, "null; write prompts before the texts")
    limit = _optional(places[0] / LIMIT)
    if limit.get("do_lower_case"):
        _refuse(places[0] / LIMIT, "do_lower_case", True, "false")
    settings["embedded_tokens"] = limit.get("max_seq_length") or 0
    if type(settings["embedded_tokens"]) is not int or settings["embedded_tokens"] < 0:
        _refuse(places[0] / LIMIT, "max_seq_length", settings["embedded_tokens"], "a positive integer, or null")
    return places[0], settings


def module_files(settings: Mapping[str, Any]) -> dict[str, str]:
    """Name -> text of the files beside an encoder: the inverse of `read_modules`.

    Args:
        settings: of `bert`; `embedded_tokens` is a positive number.
    """
    theirs = {ours: name for name, ours in POOLING.items()}[settings["pooling"]]
    old = {key: name == theirs for key, name in OLD_POOLING.items()}
    places = ["", "1_Pooling", *(["2_Normalize"] if settings["normalize"] else [])]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(PARTS, places, strict=False))
    ]
    limit = {"max_seq_length": settings["embedded_tokens"], "do_lower_case": False}
    files: dict[str, Any] = {
        MODULES: modules,
        "1_Pooling/config.json": {"word_embedding_dimension": settings["backbone.d_model"], **old},
        LIMIT: limit,
    }
    return {name: json.dumps(value, indent=2) + "\n" for name, value in files.items()}


def _pooling(file: Path) -> str:
    """Our name of the pooling."""
    config = read_json(file)
    found = config.get("pooling_mode")
    if found is None:
        found = [name for key, name in OLD_POOLING.items() if config.get(key)] or ["mean"]
    names = [found] if isinstance(found, str) else list(found)
    if len(names) != 1 or names[0] not in POOLING:
        _refuse(file, "pooling_mode", " and ".join(map(str, names)), f"one of {', '.join(POOLING)}")
    return POOLING[names[0]]


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


def _refuse(file: Path, key: str, value: Any, supported: str) -> None:
    raise CheckpointError(f"{file}: {key}={value!r} is not supported. Supported: {supported}.")
