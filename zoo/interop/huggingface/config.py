"""Read and write the config.json of a Hugging Face folder.

Every key is read, or it is known to change nothing, or it is refused.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from zoo.core import registry
from zoo.core.errors import CheckpointError
from zoo.interop.huggingface.mapping import Architecture

# Keys without an effect on the logits of any architecture here.
INERT = frozenset(
    (
        "_attn_implementation", "_attn_implementation_autoset", "_name_or_path", "architectures", "attn_implementation",
        "bos_token_id", "chunk_size_feed_forward", "decoder_start_token_id", "dtype", "eos_token_id",
        "finetuning_task", "gradient_checkpointing", "id2label", "initializer_factor", "initializer_range", "label2id",
        "mask_token_id", "model_type", "n_ctx", "output_attentions", "output_hidden_states", "output_past",
        "pad_token_id", "problem_type", "return_dict", "sep_token_id", "tf_legacy_loss", "tokenizer_class",
        "torch_dtype", "torchscript", "transformers_version", "unsloth_fixed", "unsloth_version", "use_bfloat16",
        "use_cache",
    )
)  # fmt: skip
# Defaults of generation, which old versions wrote into config.json; `generate` has its own options.
GENERATION = frozenset(
    (
        "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping",
        "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id",
        "forced_eos_token_id", "length_penalty", "max_length", "max_new_tokens", "min_length", "no_repeat_ngram_size",
        "num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "prefix", "remove_invalid_values",
        "repetition_penalty", "return_dict_in_generate", "suppress_tokens", "task_specific_params", "temperature",
        "top_k", "top_p", "typical_p",
    )
)  # fmt: skip
COUNTS = ("d_model", "n_layers", "n_decoder", "n_heads", "n_kv_heads", "d_head", "d_ff")  # our names of sizes
FILLED = {"d_model", "n_layers", "n_heads"}  # must be given

ROPE_KEYS = {  # of each type: their key -> our setting
    "default": {},
    "linear": {"factor": "factor"},
    "dynamic": {"factor": ""},  # without an effect on sequences within the context
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_max_position_embeddings": "original_context",
    },
    "yarn": {
        "factor": "factor",
        "original_max_position_embeddings": "original_context",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "attention_factor": "attention_factor",
        "truncate": "truncate",
        "mscale": "",
        "mscale_all_dim": "",
    },
    "longrope": {
        "short_factor": "short_factor",
        "long_factor": "long_factor",
        "factor": "factor",
        "original_max_position_embeddings": "original_context",
        "attention_factor": "attention_factor",
    },
}
ROPE_SOURCES = ("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor")


def at(config: Mapping[str, Any], key: str) -> Any:
    """Value at a dotted key; None if it is missing."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert dotted keys to nested dictionaries."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def refuse(key: str, value: Any, model: str, remedy: str) -> NoReturn:
    """Refuse a value that a model does not support.

    Raises:
        CheckpointError: always.
    """
    raise CheckpointError(f"config.json: {key}={value!r} is not supported by {model}. {remedy}")


def check_all_read(architecture: Architecture, config: Mapping[str, Any]) -> None:
    """Check that each key of a config is read or changes nothing.

    Raises:
        CheckpointError: an unknown key with a value, or a value that our model does not support.
    """
    for key, values in architecture.required_config.items():
        if (value := at(config, key)) is not None and value not in values:
            refuse(key, value, architecture.model, f"Supported: {' or '.join(map(repr, values))}.")
    read = {*architecture.sizes.values(), *architecture.required_config, *architecture.read, *architecture.inert}
    known = {key.partition(".")[0] for key in read} | {architecture.context[0], "vocab_size"} | INERT | GENERATION
    for key, value in config.items():
        if key not in known and value not in (None, [], {}):
            refuse(key, value, architecture.model, "Remove the key only if the model does not depend on it.")


def read_settings(architecture: Architecture, config: Mapping[str, Any]) -> dict[str, Any]:
    """Our hyperparameters, nested, from a config; missing keys have the defaults of `transformers`.

    Raises:
        CheckpointError: a key that is missing, unknown, or has a value that our model does not support.
    """
    check_all_read(architecture, config)
    settings: dict[str, Any] = {"name": architecture.model, **architecture.fixed_hparams}
    sizes: dict[str, Any] = {}  # by the last part of our dotted names
    for ours, theirs in architecture.sizes.items():
        name, value = ours.rpartition(".")[2], at(config, theirs)
        if value is None and name in FILLED:
            raise CheckpointError(f"config.json is damaged: {theirs} is missing.")
        if value is None:
            null = name == "n_kv_heads" and theirs in config  # one per head, and not the default
            value = 0 if null else architecture.defaults.get(theirs)
        if value is None and name == "d_ff":
            value = 4 * sizes["d_model"]
        if value is not None:
            settings[ours] = sizes[name] = value
    settings |= architecture.import_config(config)
    if "n_heads" in sizes:
        width, heads, own = sizes["d_model"], sizes["n_heads"], config.get("head_dim")
        if "head_dim" in architecture.sizes.values():
            if settings.get("backbone.d_head") == width // heads:
                settings["backbone.d_head"] = 0
        elif own is not None and own * heads != width:
            refuse("head_dim", own, architecture.model, f"Supported: {width // heads}.")
    return nested(settings)


def check_written(architecture: Architecture, config: Mapping[str, Any], empty: Collection[str] = ()) -> None:
    """Check a config before it is written: sizes are positive integers, and tokens are in the vocabulary.

    Args:
        architecture: of the model.
        config: to write.
        empty: keys that may be None.

    Raises:
        CheckpointError: another program would not understand it.
    """
    sizes = [theirs for ours, theirs in architecture.sizes.items() if ours.rpartition(".")[2] in COUNTS]
    for key in [*sizes, architecture.context[0], "vocab_size"]:
        if type(value := at(config, key)) is not int or value < 1:
            raise CheckpointError(f"{key}={value!r}: not a positive integer, in a config to write. Please report it.")
    for key, value in config.items():
        if value is None and key in empty:
            continue
        tokens = value if isinstance(value, list) else [value]
        bad = key.endswith("_token_id") and not all(type(i) is int and 0 <= i < config["vocab_size"] for i in tokens)
        if value is None or bad or (isinstance(value, float) and not math.isfinite(value)):
            raise CheckpointError(f"{key}={value!r}: not valid in a config to write. Please report it.")


def import_rope(
    config: Mapping[str, Any], *, partial: bool = False, default: float = 1.0, theta: float = 10000.0
) -> dict[str, Any]:
    """Base and scaling of rotary angles, from the keys of `transformers` 4 and 5; `rope_scaling` counts first.

    Args:
        config: config.json.
        partial: a part of each head may rotate.
        default: the part if it is not given.
        theta: the base if it is not given.

    Raises:
        CheckpointError: an unsupported type or key.
    """
    values = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    theta = values.pop("rope_theta", config.get("rope_theta") or theta)
    part = values.pop("partial_rotary_factor", config.get("partial_rotary_factor"))
    if not partial and part not in (None, 1, 1.0):
        refuse("partial_rotary_factor", part, "language_model", "Supported: 1.")
    old = values.pop("type", "default")
    kind = values.pop("rope_type", old)
    kind = "longrope" if kind == "su" else kind  # its first name
    if kind not in ROPE_KEYS:
        refuse("rope_type", kind, "language_model", f"Supported: {', '.join(ROPE_KEYS)}.")
    known = ROPE_KEYS[kind]
    for key, value in values.items():
        if key not in known and not (key == "original_max_position_embeddings" or value is None):
            refuse(f"rope_parameters.{key}", value, "language_model", "Remove it only if it changes nothing.")
    context = config.get("max_position_embeddings", 2048)
    if "original_max_position_embeddings" in known:
        values.setdefault("original_max_position_embeddings", context)
    if kind == "longrope":
        whole = config.get("original_max_position_embeddings") or values["original_max_position_embeddings"]
        values |= {
            "original_max_position_embeddings": whole,
            "factor": values.get("factor") or max(context / whole, 1.0),
        }
    if kind == "yarn":
        values["factor"] = values.get("factor") or context / values["original_max_position_embeddings"]
        values["attention_factor"] = values.get("attention_factor") or _mscale(values)
    needed = {"linear": known, "llama3": known, "longrope": ("short_factor", "long_factor")}.get(kind, ())
    if missing := next((key for key in needed if values.get(key) is None), ""):
        raise CheckpointError(f"config.json is damaged: rope_parameters.{missing} is missing.")
    scaling = {ours: values[theirs] for theirs, ours in known.items() if ours and values.get(theirs) is not None}
    name = kind if scaling else "none"
    own = {"backbone.partial_rotary_factor": float(default if part is None else part)} if partial else {}
    return own | {"backbone.rope_theta": float(theta), "backbone.rope_scaling": {**_defaults(name), **scaling}}


def _defaults(name: str) -> dict[str, Any]:
    """All settings of a kind of scaling."""
    return {"name": name} | {s.name: s.default for s in registry.peek("rope_scaling", name).settings}


def _mscale(values: Mapping[str, Any]) -> float:
    """YaRN's factor on queries and keys where it is not given."""

    def at_factor(weight: float) -> float:
        return 0.1 * weight * math.log(values["factor"]) + 1.0 if values["factor"] > 1 else 1.0

    one, every = values.get("mscale"), values.get("mscale_all_dim")
    return at_factor(one) / at_factor(every) if one and every else at_factor(1.0)


def export_rope(settings: Mapping[str, Any], partial: bool = False) -> dict[str, Any]:
    """Inverse of `import_rope`."""
    scaling = settings["backbone.rope_scaling"]
    scaling = {"name": scaling} if isinstance(scaling, str) else dict(scaling)
    scaling = _defaults(scaling["name"]) | scaling
    kind = "default" if scaling["name"] == "none" else scaling["name"]
    values = {theirs: scaling[ours] for theirs, ours in ROPE_KEYS[kind].items() if scaling.get(ours)}
    if "truncate" in scaling:
        values["truncate"] = scaling["truncate"]
    if partial:
        values["partial_rotary_factor"] = settings["backbone.partial_rotary_factor"]
    return {"rope_parameters": {"rope_type": kind, "rope_theta": settings["backbone.rope_theta"], **values}}
