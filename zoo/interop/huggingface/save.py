"""Save models as folders in the Hugging Face format."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from zoo.core import registry
from zoo.core.errors import CheckpointError
from zoo.core.signature import hyperparameters
from zoo.core.spaces import Pair
from zoo.data.text.chat import PLAIN, template_of
from zoo.data.text.tokenizers.pretrained import FILE, Pretrained, as_pretrained, with_sentinels
from zoo.hub.bundle import describe
from zoo.hub.card import card
from zoo.hub.manifest import CARD
from zoo.hub.pretrained import default_output, resolve
from zoo.interop.huggingface.architectures import ARCHITECTURES
from zoo.interop.huggingface.config import check_written, nested
from zoo.interop.huggingface.load import CONFIG, INDEX, WEIGHTS, is_folder, load, rows_of
from zoo.interop.huggingface.mapping import Architecture, Weights
from zoo.interop.huggingface.sentence_transformers import module_files
from zoo.io.atomic import atomic_replace, write_text
from zoo.models.base import Model
from zoo.runs.checkpoint import find_checkpoint

TOLERANCE = 1e-4  # of logits
MAX_SHARD_SIZE = 5_000_000_000  # bytes, as of `transformers`
NAME_OF_EXPORT = "model"  # in its card


def save(model: Model, folder: str | Path, model_type: str = "", max_shard_size: int = MAX_SHARD_SIZE) -> Path:
    """Save a model in the Hugging Face format.

    A pretrained tokenizer is saved unchanged; a byte-pair tokenizer is converted. The sentinels of a T5 of plain text
    become its tokens `<extra_id_0>`, `<extra_id_1>` ...; a T5 of pairs is saved without them. Weights are float32. An
    encoder without a head is saved as a folder of sentence-transformers.

    Args:
        model: a model that is equal to one of `ARCHITECTURES`.
        folder: created if missing.
        model_type: kind of the architecture; "" is the first of `ARCHITECTURES` that is equal to the model.
        max_shard_size: most bytes of tensors in a file; more are saved in several files with an index.

    Raises:
        CheckpointError: no architecture, or not this one, has the settings of the model.
    """
    from safetensors.torch import save as as_bytes

    folder = Path(folder)
    tokenizer = getattr(model, "tokenizer", None)
    architecture, config, theirs = described_weights(model, model_type)
    texts = {CONFIG: json.dumps(config, indent=2) + "\n"}
    texts |= _tokenizer_files(tokenizer, model.spec.size, architecture.data is Pair, _sentinels(model))
    settings = all_settings(model)
    if not settings.get("backbone.head", True) and tokenizer is not None:
        most = settings["embedded_tokens"] or model.spec.size
        texts |= module_files(settings | {"embedded_tokens": most})
    shards = _shards(theirs, max_shard_size)
    if len(shards) > 1:
        places = {key: name for name, part in shards.items() for key in part}
        size = sum(weight.nbytes for weight in theirs.values())
        texts[INDEX] = json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=2) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in shards.items():
        with atomic_replace(folder / name) as draft:
            draft.write_bytes(as_bytes(part, metadata={"format": "pt"}))
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_text(folder / name, text)
    for old in (folder / INDEX, *folder.glob("model*.safetensors")):  # of an earlier export with other files
        if old.name not in shards and old.name not in texts:
            old.unlink(missing_ok=True)
    return folder


def _shards(weights: Weights, most: int) -> dict[str, Weights]:
    """File name -> weights, in their order, of at most so many bytes unless a single one is larger."""
    parts, size = [Weights()], 0
    for name, weight in weights.items():
        if parts[-1] and size + weight.nbytes > most:
            parts.append(Weights())
            size = 0
        parts[-1][name] = weight
        size += weight.nbytes
    if len(parts) == 1:
        return {WEIGHTS: parts[0]}
    return {f"model-{i:05}-of-{len(parts):05}.safetensors": part for i, part in enumerate(parts, 1)}


def described_weights(model: Model, model_type: str = "") -> tuple[Architecture, dict[str, Any], Weights]:
    """Architecture, config.json and weights of a model by their names in the Hugging Face format.

    Args:
        model: a model that is equal to one of `ARCHITECTURES`.
        model_type: see `save`.

    Raises:
        CheckpointError: no architecture has the settings of the model.
    """
    architecture = expressible(model, model_type)
    tokenizer = getattr(model, "tokenizer", None)
    own = tokenizer if isinstance(tokenizer, Pretrained) else None
    config = _config(architecture, model, tokenizer)
    ours, theirs = model.state_dict(), Weights()
    for names, name, transposed in rows_of(architecture, ours):
        whole = torch.cat([ours[n] for n in names])
        theirs[name] = (whole.T if transposed and whole.ndim == 2 else whole).contiguous().clone()
    converted = architecture.export_weights(theirs, config, all_settings(model) | {"tokenizer": own})
    return architecture, config, {f"{architecture.prefix}{k}": w for k, w in converted.items()}


def export(run: str | Path, out: Path | None = None, model_type: str = "") -> Path:
    """Export a run's best weights in the Hugging Face format, verify them, and print how to use them.

    Of a fine-tuned model, the merged model is exported.

    Args:
        run: run folder, checkpoint, or a folder of that format.
        out: the folder; None is `export/huggingface` in the run folder.
        model_type: see `save`.

    Raises:
        CheckpointError: see `save`; or the logits of the export differ, and it was removed.
    """
    from zoo.interop.loading import load_for_warm_start  # imports this package

    model = load_for_warm_start(str(run))
    where = out or default_output(run, "export", "huggingface")
    if where.exists() and (not where.is_dir() or any(where.iterdir())):
        raise CheckpointError(f"{where} is not empty. Remove it, or use another --out.")
    made = not where.exists()
    save(model, where, model_type)
    off = difference(model, load(where))
    if not off <= TOLERANCE:
        shutil.rmtree(where)
        if not made:
            where.mkdir()
        raise CheckpointError(f"{run}: logits of the export differ by {off:.1e}. It was removed. Please report it.")
    print(f"{where}: its logits differ from the model's by at most {off:.1e}")
    name = json.loads((where / CONFIG).read_text())["architectures"][0]
    code = "import transformers\n\nmodel = transformers.{}.from_pretrained({})"
    if not is_folder(source := resolve(run)):
        facts = describe(model, find_checkpoint(source), NAME_OF_EXPORT)
        use = f"```python\n{code.format(name, json.dumps('FOLDER'))}\n```"
        write_text(where / CARD, card(facts, use=use, library="transformers"))
    print(code.format(name, json.dumps(str(where))))
    return where


@torch.no_grad()
def difference(one: Model, two: Model) -> float:
    """Maximum difference of two models' logits on some tokens."""
    tokens = torch.arange(min(one.spec.size, 64)).remainder(one.spec.tokens.vocab_size)[None]
    a, b = (_outputs(model, tokens, isinstance(two.spec.x, Pair)) for model in (one, two))
    return float((a - b).abs().max())


def _outputs(model: Any, tokens: torch.Tensor, of_pairs: bool) -> torch.Tensor:
    """Logits of tokens (1, T), or features of an encoder without a head."""
    if of_pairs:
        found = model.predict(tokens, tokens)
    elif not all_settings(model).get("backbone.head", True):
        found = model.net.features(tokens)
    else:
        found = model.net(tokens)
    assert isinstance(found, torch.Tensor)
    return found


def expressible(model: Model, model_type: str = "") -> Architecture:
    """The first architecture with the settings of a model, or the one of this kind.

    Raises:
        CheckpointError: none has them; the nearest is named.
    """
    reasons, settings = [], all_settings(model)
    kinds = [a.kind for a in ARCHITECTURES if a.model == model.registered_name]
    if model_type and kinds and model_type not in kinds:
        raise CheckpointError(
            f"model_type={model_type!r}: not a kind of {model.registered_name}. Choose one of {', '.join(kinds)}."
        )
    for architecture in ARCHITECTURES:
        if architecture.model != model.registered_name or model_type not in ("", architecture.kind):
            continue
        off = [
            f"{k}={settings[k]}"
            for k, v in architecture.fixed_hparams.items()
            if k in settings and settings[k] != v and k not in architecture.converted
        ]
        known = {*architecture.fixed_hparams, *architecture.sizes, *architecture.own}
        off += [f"{k}={settings[k]}" for k, v in USUAL.items() if k not in known and settings.get(k, v) != v]
        off += [f"{k}={settings.get(k)}" for k, v in architecture.choices.items() if settings.get(k) not in v]
        off += [f"{k}={settings.get(k, 0)}" for k in architecture.needed if not settings.get(k)]
        if not off:
            return architecture
        reasons.append((off, f"{architecture.kind} does not have {', '.join(off)}"))
    why = min(reasons, key=lambda reason: (other_network(reason[0]), len(reason[0])))[1] if reasons else ""
    why = why or f"{', '.join(dict.fromkeys(a.model for a in ARCHITECTURES))} can have one"
    raise CheckpointError(f"this {model.registered_name} has no counterpart in the Hugging Face format: {why}.")


def other_network(off: list[str]) -> bool:
    """Whether one of the settings that do not fit is the network itself."""
    return any(setting.startswith("backbone.name=") for setting in off)


# Settings that an architecture has otherwise only if its table names them.
USUAL = {
    "document_mask": False,
    "backbone.window": 0,
    "backbone.global_every": 0,
    "backbone.window_theta": 0.0,
    "backbone.softcap": 0.0,
    "backbone.logit_softcap": 0.0,
    "backbone.d_head": 0,
    "backbone.attention_scale": 0.0,
    "backbone.qkv_bias": False,
    "backbone.qk_norm_gain": False,
    "backbone.norm_place": "before",
    "backbone.parallel_residual": False,
    "backbone.scale_embeddings": False,
    "backbone.partial_rotary_factor": 1.0,
    "backbone.n_experts": 0,
}


def all_settings(model: Model) -> dict[str, Any]:
    """Return every setting of a model and of its components by dotted names, defaults included."""
    settings: dict[str, Any] = {}
    for setting in hyperparameters(type(model)):
        value = model.hparams[setting.name]
        if setting.part is None:
            settings[setting.name] = value
            continue
        chosen = {"name": value} if isinstance(value, str) else dict(value)
        defaults = {s.name: s.default for s in hyperparameters(registry.get(setting.part, chosen["name"]))}
        settings |= {f"{setting.name}.{k}": v for k, v in (defaults | chosen).items()}
    return settings


def _config(architecture: Architecture, model: Model, tokenizer: Any) -> dict[str, Any]:
    """The config.json of a model, with a value for every setting that has a default."""
    settings = all_settings(model) | {"begin_token": getattr(model, "begin", None)}
    settings["tokenizer"] = tokenizer
    filled = {k: v for k, v in settings.items() if k in architecture.sizes}
    own = {k.rpartition(".")[2]: k for k in filled}  # d_ff -> backbone.d_ff
    if "n_heads" in own:
        up = next(w for n, w in model.state_dict().items() if ".mlp." in n and n.endswith(".up.weight"))
        actual = {
            "d_ff": up.shape[0],
            "n_kv_heads": filled[own["n_heads"]],
            "n_decoder": filled[own["n_layers"]],
            "d_head": filled[own["d_model"]] // filled[own["n_heads"]],
            "norm_eps": 1e-5
            if settings.get("backbone.norm", "layernorm") == "layernorm"
            else torch.finfo(torch.float32).eps,
        }
        filled |= {own[name]: value for name, value in actual.items() if name in own and not filled[own[name]]}
    further = architecture.export_config(settings | {"context": model.spec.size})
    values = {architecture.sizes[k]: v for k, v in filled.items()} | further
    values |= {key: choices[0] for key, choices in architecture.required_config.items() if key not in values}
    size = model.spec.tokens.vocab_size + _sentinels(model)
    context = model.spec.size + architecture.unused_positions(values)
    values |= {architecture.context[0]: context, "vocab_size": size, "dtype": "float32"}
    if tokenizer is not None:
        ends = tokenizer.ends
        values |= {"bos_token_id": tokenizer.begin, "eos_token_id": ends[0] if len(ends) == 1 else ends}
    name = architecture.name if settings.get("backbone.head", True) else architecture.base_name
    config = {"architectures": [name], "model_type": architecture.kind, **nested(values)}
    check_written(architecture, config, [key for key, value in further.items() if value is None])
    return config


def _sentinels(model: Model) -> int:
    """Token ids after the vocabulary: those that a T5 of plain text puts in place of spans."""
    return 0 if isinstance(model.spec.x, Pair) else int(model.hparams.get("num_sentinels", 0))


def _tokenizer_files(tokenizer: Any, context: int, sources: bool = False, sentinels: int = 0) -> dict[str, str]:
    """Name -> text of tokenizer.json and the files beside it; those of a pretrained tokenizer are unchanged.

    Args:
        tokenizer: of the model; None for no files.
        context: most tokens of a text.
        sources: texts are sources, which have their end token after them and no begin token.
        sentinels: special tokens to add.
    """
    if tokenizer is None:
        return {}
    text, special = as_pretrained(tokenizer, sources)
    if sentinels:
        text = with_sentinels(text, tokenizer.vocab_size, sentinels)
    value = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context, **special}
    files = {FILE: text, "tokenizer_config.json": json.dumps(value, indent=2) + "\n"}
    if tokenizer.chat_format == "chat" and template_of(tokenizer).kind == "plain":
        files["chat_template.jinja"] = PLAIN
    return files | (tokenizer.files if isinstance(tokenizer, Pretrained) else {})
