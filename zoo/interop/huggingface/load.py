"""Load models from folders of the Hugging Face format; `ARCHITECTURES` lists those that are supported.

A folder contains `config.json`, `model.safetensors` (one file, or several with an index) and `tokenizer.json`.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.core import registry
from zoo.core.cache import user_path
from zoo.core.errors import CheckpointError
from zoo.core.spaces import Pair, Tokens
from zoo.core.spec import DataSpec
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.pretrained import FILE, Pretrained
from zoo.interop.huggingface.architectures import ARCHITECTURES
from zoo.interop.huggingface.config import read_settings
from zoo.interop.huggingface.json_file import read_json
from zoo.interop.huggingface.mapping import Architecture, Weights
from zoo.interop.huggingface.sentence_transformers import MODULES, read_modules
from zoo.io.vetting import check_fits_in_memory
from zoo.models.base import Model

OTHER_TOKENIZERS = ("vocab.json", "merges.txt", "vocab.txt", "spiece.model", "tokenizer.model")  # older forms
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


def is_folder(path: str | Path) -> bool:
    """Whether a path is a folder in the Hugging Face format, or of sentence-transformers."""
    return any((Path(path) / name).is_file() for name in (CONFIG, MODULES))


class Adapter(Protocol):
    """Changes the weights of a base model, given the prefix of names and the transposed weights."""

    def merge(self, weights: Weights, prefix: str, transposed: Collection[str]) -> Weights:
        """Return the changed weights."""


def load(folder: str | Path, adapter: Adapter | None = None) -> Model:
    """Load the model of a folder in the Hugging Face format, in eval mode. No code of the folder is executed.

    Weights become float32. Of a folder of sentence-transformers, `embed` gives the vectors of that library.

    Args:
        folder: the folder.
        adapter: an adapter to merge into the weights.

    Raises:
        CheckpointError: an unsupported architecture or setting; files that are missing, damaged, or do not match.
    """
    folder = user_path(folder)
    name, vectors = folder.resolve().name, dict[str, Any]()
    if (folder / MODULES).is_file():
        folder, vectors = read_modules(folder)
    config = read_json(folder / CONFIG)
    architecture = _chosen(folder, config)
    try:
        settings = read_settings(architecture, config)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    tokenizer, size = None, _number(config, "vocab_size", folder)
    if (folder / FILE).is_file():
        tokenizer = Pretrained(path=str(folder)).of_size(size)
    elif other := [name for name in OTHER_TOKENIZERS if (folder / name).is_file()]:
        raise CheckpointError(
            f"{folder}: {' and '.join(other)}, but no {FILE}. Convert it by transformers: "
            f"AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    keys = set(_names(folder))
    bare = not any(key.startswith(architecture.base) for key in keys)  # of an encoder without a head
    if architecture.head and architecture.head not in keys:
        settings["backbone"]["head"] = False
    key, default = architecture.context
    positions = default if config.get(key) is None else _number(config, key, folder)
    if (context := positions - architecture.unused_positions(config)) < 1:
        raise CheckpointError(f"{folder / CONFIG}: {key}={positions} leaves no position for a token.")
    if vectors:
        settings |= _limited(vectors, architecture, context, tokenizer, folder)
    text = Tokens(context, size, dumps(tokenizer) if tokenizer else "")
    spec = DataSpec(Pair(text, text) if architecture.data is Pair else text, name=name)
    check_fits_in_memory(lambda: registry.build("model", settings, spec, where=str(folder)))
    model: Model = registry.build("model", settings, spec, where=str(folder))
    before = architecture.base if bare else ""
    theirs = {before + k.removeprefix(architecture.prefix): w.float() for k, w in _weights(folder)}
    theirs = {k: w for k, w in theirs.items() if not re.match(architecture.ignored, k)}
    _drop_copies(architecture, theirs, model, folder)
    if adapter is not None:
        transposed = {name for _, name, turned in rows_of(architecture, model.state_dict()) if turned}
        theirs = adapter.merge(theirs, architecture.prefix, transposed)
    try:
        theirs = architecture.import_weights(theirs, config, tokenizer)
    except KeyError as error:
        raise CheckpointError(f"{folder}: not a {architecture.name}; weights {error.args[0]} are missing.") from None
    model.load_state_dict(_translated(architecture, theirs, model, folder))
    return model.eval()


def _chosen(folder: Path, config: Mapping[str, Any]) -> Architecture:
    kind = config.get("model_type")
    for architecture in ARCHITECTURES:
        if architecture.kind == kind:
            return architecture
    have = [a.kind for a in ARCHITECTURES]
    raise CheckpointError(f"{folder}: model_type={kind!r} is not supported. Supported: {', '.join(have)}.")


def _limited(
    vectors: dict[str, Any], architecture: Architecture, context: int, tokenizer: Pretrained | None, folder: Path
) -> dict[str, Any]:
    """Settings about the vectors of texts, with the number of tokens that `sentence_transformers` would read.

    Raises:
        CheckpointError: the model does not have such settings, or its folder no tokenizer.
    """
    if not architecture.base:
        have = [a.kind for a in ARCHITECTURES if a.base]
        raise CheckpointError(
            f"{folder}: model_type={architecture.kind!r} is not supported in a folder of sentence-transformers. "
            f"Supported: {', '.join(have)}."
        )
    if tokenizer is None:
        raise CheckpointError(f"{folder} has no {FILE}, without which texts have no vectors. Save the tokenizer there.")
    most = vectors["embedded_tokens"] or tokenizer.max_length or context
    return vectors | {"embedded_tokens": min(most, context)}


def _drop_copies(architecture: Architecture, theirs: Weights, model: Model, folder: Path) -> None:
    """Remove weights that are stored twice, such as a tied head.

    Raises:
        CheckpointError: they are not equal.
    """
    wanted = {name for _, name, _ in rows_of(architecture, model.state_dict())}
    for name, origin in architecture.copies.items():
        if name in wanted or name not in theirs or origin not in theirs:
            continue
        if not torch.equal(theirs[origin], theirs.pop(name)):
            raise CheckpointError(
                f"{folder}: weights {name} are not {origin}, to which {CONFIG} ties them. Correct tie_word_embeddings."
            )


def _translated(architecture: Architecture, theirs: Weights, model: Model, folder: Path) -> Weights:
    """Rename their weights.

    Raises:
        CheckpointError: weights are missing, unexpected, or of other shapes.
    """
    wanted, found = model.state_dict(), Weights()
    rest = dict(theirs)
    for ours, name, transposed in rows_of(architecture, wanted):
        if name not in rest:
            raise CheckpointError(
                f"{folder}: not a {architecture.name}; weights {architecture.prefix}{name} are missing."
            )
        whole = rest.pop(name)
        whole = whole.T if transposed and whole.ndim == 2 else whole
        rows = [len(wanted[own]) for own in ours]
        if sum(rows) != len(whole):
            raise CheckpointError(
                f"{folder}: {name} has shape {tuple(whole.shape)}, but by {CONFIG} it is of {sum(rows)} rows."
            )
        found |= dict(zip(ours, (part.contiguous() for part in whole.split(rows)), strict=True))
    if rest:
        raise CheckpointError(f"{folder}: not a {architecture.name}; unexpected weights {', '.join(sorted(rest)[:5])}.")
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise CheckpointError(
                f"{folder}: {name} has shape {tuple(found[name].shape)}, but by {CONFIG} it is {tuple(tensor.shape)}."
            )
    return found


def rows_of(architecture: Architecture, wanted: Mapping[str, Tensor]) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """Expand the mapping over layers and experts: our names, their name, and whether it is transposed."""
    parts = {name[:i] for name in wanted for i, letter in enumerate(name) if letter == "."}
    for same in architecture.weights:
        names = (same.ours,) if isinstance(same.ours, str) else same.ours
        for ours, theirs in _expanded(names, same.theirs, parts):
            if ours[0] in wanted:
                yield ours, theirs, same.transposed


def _expanded(ours: tuple[str, ...], theirs: str, parts: Collection[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Put in place of each `{}` every index for which a module of that name is in `parts`."""
    before, index, _ = ours[0].partition("{}")
    if not index:
        yield ours, theirs
        return
    i = 0
    while f"{before}{i}" in parts:
        filled = tuple(name.replace("{}", str(i), 1) for name in ours)
        yield from _expanded(filled, theirs.replace("{}", str(i), 1), parts)
        i += 1


def _names(folder: Path) -> Iterator[str]:
    """Iterate over the names of the tensors of a folder."""
    for file in _opened(folder):
        yield from file.keys()


def _weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the tensors of a folder."""
    for file in _opened(folder):
        for key in file.keys():  # noqa: SIM118 - not a dict
            yield key, file.get_tensor(key)


def _opened(folder: Path) -> Iterator[Any]:
    """Open the files of weights of a folder, one after another."""
    from safetensors import SafetensorError, safe_open

    names = [WEIGHTS]
    if (folder / INDEX).is_file():
        value = read_json(folder / INDEX).get("weight_map")
        names = sorted({str(name) for name in value.values()}) if isinstance(value, dict) else []
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            old = " (pytorch_model.bin can contain code: convert it to safetensors)"
            raise CheckpointError(f"{folder} has no {name}{old if (folder / 'pytorch_model.bin').exists() else ''}.")
        try:
            with safe_open(folder / name, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise CheckpointError(f"{folder / name} is damaged: {error}.") from None


def _number(config: Mapping[str, Any], key: str, folder: Path) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{folder / CONFIG}: {key}={value!r} is not an integer of at least 1.")
    return value
