"""Table of GPT-NeoX, the architecture of Pythia."""

from collections.abc import Mapping
from typing import Any

from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.pretrained import Pretrained
from zoo.interop.huggingface.config import export_rope, import_rope, refuse
from zoo.interop.huggingface.mapping import Architecture, WeightMapping, Weights, fused_attention, pairs

BLOCK = "net.blocks.{}"
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}


def _import_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary positions of a quarter of each head by default, and the activation.

    Raises:
        CheckpointError: an activation that our model does not have.
    """
    act = config.get("hidden_act") or "gelu"
    if act not in ACTIVATIONS:
        refuse("hidden_act", act, "language_model", f"Supported: {', '.join(ACTIVATIONS)}.")
    old = {"rope_theta": config.get("rotary_emb_base", 10000.0), "partial_rotary_factor": config.get("rotary_pct")}
    rope = import_rope({**old, **config}, partial=True, default=0.25)
    return rope | {"backbone.mlp": ACTIVATIONS[act]}


def _export_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `_import_config`."""
    act = {ours: theirs for theirs, ours in ACTIVATIONS.items()}[settings["backbone.mlp"]]
    return export_rope(settings, partial=True) | {"hidden_act": act}


def _import_weights(weights: Weights, config: Mapping[str, Any], tokenizer: Pretrained | None) -> Weights:
    """Order the rows of fused queries, keys and values by kind instead of by head; rename the head of new files."""
    if "lm_head.weight" in weights:
        weights["embed_out.weight"] = weights.pop("lm_head.weight")
    return _regroup(weights, (config["num_attention_heads"], 3))


def _export_weights(weights: Weights, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Weights:
    return _regroup(weights, (3, config["num_attention_heads"]))


def _regroup(weights: Weights, groups: tuple[int, int]) -> Weights:
    """Transpose the order of the rows of fused matrices from (a, b, rows) to (b, a, rows)."""
    return {
        name: w.unflatten(0, (*groups, -1)).transpose(0, 1).flatten(0, 2) if ".query_key_value." in name else w
        for name, w in weights.items()
    }


GPT_NEOX = Architecture(
    kind="gpt_neox",
    name="GPTNeoXForCausalLM",
    model="language_model",
    data=Tokens,
    context=("max_position_embeddings", 2048),
    sizes={
        "backbone.d_model": "hidden_size",
        "backbone.n_layers": "num_hidden_layers",
        "backbone.n_heads": "num_attention_heads",
        "backbone.d_ff": "intermediate_size",
        "backbone.norm_eps": "layer_norm_eps",
        "backbone.dropout": "hidden_dropout",
        "backbone.tie_weights": "tie_word_embeddings",
        "backbone.parallel_residual": "use_parallel_residual",
    },
    fixed_hparams={
        "backbone.name": "transformer",
        "backbone.position_encoding": "rotary",
        "backbone.norm": "layernorm",
        "backbone.bias": True,
        "backbone.qk_norm": False,
        "backbone.n_kv_heads": 0,
    },
    required_config={"attention_bias": (True,), "is_decoder": (False, True), "is_encoder_decoder": (False,)},
    defaults={
        "intermediate_size": 24576,
        "layer_norm_eps": 1e-5,
        "hidden_dropout": 0.0,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
    },
    read=(
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "rotary_pct",
        "rotary_emb_base",
        "partial_rotary_factor",
        "hidden_act",
    ),
    own=("backbone.mlp", "backbone.partial_rotary_factor"),
    choices={"backbone.mlp": tuple(ACTIVATIONS.values())},
    inert=("attention_dropout", "classifier_dropout"),
    weights=(
        WeightMapping("net.embedding.weight", "gpt_neox.embed_in.weight"),
        *pairs(f"{BLOCK}.norm1", "gpt_neox.layers.{}.input_layernorm"),
        WeightMapping(fused_attention("weight"), "gpt_neox.layers.{}.attention.query_key_value.weight"),
        WeightMapping(fused_attention("bias"), "gpt_neox.layers.{}.attention.query_key_value.bias"),
        *pairs(f"{BLOCK}.attention.out", "gpt_neox.layers.{}.attention.dense"),
        *pairs(f"{BLOCK}.norm2", "gpt_neox.layers.{}.post_attention_layernorm"),
        *pairs(f"{BLOCK}.mlp.up", "gpt_neox.layers.{}.mlp.dense_h_to_4h"),
        *pairs(f"{BLOCK}.mlp.out", "gpt_neox.layers.{}.mlp.dense_4h_to_h"),
        *pairs("net.norm", "gpt_neox.final_layer_norm"),
        WeightMapping("net.head.weight", "embed_out.weight"),
    ),
    ignored=r".*\.attention\.(masked_)?bias$|.*rotary_emb\.inv_freq$",
    copies={"embed_out.weight": "gpt_neox.embed_in.weight", "lm_head.weight": "gpt_neox.embed_in.weight"},
    import_config=_import_config,
    export_config=_export_config,
    import_weights=_import_weights,
    export_weights=_export_weights,
)
