"""Table of OPT."""

from collections.abc import Mapping
from typing import Any

import torch

from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.pretrained import Pretrained
from zoo.interop.huggingface.config import refuse
from zoo.interop.huggingface.mapping import Architecture, WeightMapping, Weights, pairs

BLOCK = "net.blocks.{}"
UNUSED = 2  # first rows of OPT's table of positions, of padding


def _import_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing; a check that embeddings have the width of the model.

    Raises:
        CheckpointError: they do not.
    """
    width = config.get("word_embed_proj_dim")
    if width not in (None, config["hidden_size"]):
        refuse("word_embed_proj_dim", width, "language_model", f"Supported: {config['hidden_size']}, the width.")
    return {}


def _export_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `_import_config`."""
    return {"word_embed_proj_dim": settings["backbone.d_model"]}


def _import_weights(weights: Weights, config: Mapping[str, Any], tokenizer: Pretrained | None) -> Weights:
    """Remove the rows of padding from the table of positions."""
    places = "decoder.embed_positions.weight"
    return weights | {places: weights[places][UNUSED:]}


def _export_weights(weights: Weights, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Weights:
    places = weights["decoder.embed_positions.weight"]
    return weights | {"decoder.embed_positions.weight": torch.cat([places.new_zeros(UNUSED, places.shape[1]), places])}


OPT = Architecture(
    kind="opt",
    name="OPTForCausalLM",
    model="language_model",
    data=Tokens,
    context=("max_position_embeddings", 2048),
    sizes={
        "backbone.d_model": "hidden_size",
        "backbone.n_layers": "num_hidden_layers",
        "backbone.n_heads": "num_attention_heads",
        "backbone.d_ff": "ffn_dim",
        "backbone.dropout": "dropout",
    },
    fixed_hparams={
        "backbone.name": "transformer",
        "backbone.position_encoding": "learned",
        "backbone.norm": "layernorm",
        "backbone.norm_eps": 1e-5,
        "backbone.mlp": "relu",
        "backbone.bias": True,
        "backbone.qk_norm": False,
        "backbone.tie_weights": True,
        "backbone.n_kv_heads": 0,
    },
    required_config={
        "activation_function": ("relu",),
        "do_layer_norm_before": (True,),
        "_remove_final_layer_norm": (False,),
        "enable_bias": (True,),
        "layer_norm_elementwise_affine": (True,),
        "tie_word_embeddings": (True,),
        "is_encoder_decoder": (False,),
    },
    defaults={"ffn_dim": 3072, "dropout": 0.1},
    read=("word_embed_proj_dim",),
    inert=("attention_dropout", "activation_dropout", "init_std", "layerdrop"),
    weights=(
        WeightMapping("net.embedding.weight", "decoder.embed_tokens.weight"),
        WeightMapping("net.position_embedding.weight", "decoder.embed_positions.weight"),
        *pairs(f"{BLOCK}.norm1", "decoder.layers.{}.self_attn_layer_norm"),
        *(
            mapping
            for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj"))
            for mapping in pairs(f"{BLOCK}.attention.{ours}", f"decoder.layers.{{}}.self_attn.{theirs}")
        ),
        *pairs(f"{BLOCK}.norm2", "decoder.layers.{}.final_layer_norm"),
        *pairs(f"{BLOCK}.mlp.up", "decoder.layers.{}.fc1"),
        *pairs(f"{BLOCK}.mlp.out", "decoder.layers.{}.fc2"),
        *pairs("net.norm", "decoder.final_layer_norm"),
    ),
    prefix="model.",
    copies={"lm_head.weight": "decoder.embed_tokens.weight"},
    import_config=_import_config,
    export_config=_export_config,
    import_weights=_import_weights,
    export_weights=_export_weights,
)
