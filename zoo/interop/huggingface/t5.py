"""T5 in the Hugging Face format."""

from collections.abc import Mapping
from typing import Any

from zoo.core.errors import CheckpointError
from zoo.core.spaces import Pair
from zoo.interop.huggingface.config import refuse
from zoo.interop.huggingface.mapping import Architecture, WeightMapping, Weights
from zoo.nn.blocks.position_encoding import MAX_DISTANCE, NUM_BUCKETS


def _import_t5_config(config: Mapping[str, Any]) -> dict[str, Any]:
    value = config.get("feed_forward_proj", "relu")
    kinds = {theirs: ours for ours, theirs in T5_MLPS.items()}
    if value not in kinds:
        raise CheckpointError(f"feed_forward_proj={value!r}: not supported by t5. Supported are {', '.join(kinds)}.")
    act = {"relu": ("relu",), "gated-gelu": ("gelu_new",)}[value]
    for key, allowed in (("dense_act_fn", act), ("is_gated_act", (value.startswith("gated"),))):
        if config.get(key) not in (None, *allowed):
            refuse(key, config[key], "t5", f"With feed_forward_proj={value} it is {allowed[0]}.")
    begin = config.get("decoder_start_token_id")
    tied = config.get("tie_word_embeddings", True)
    return {
        "backbone.mlp": kinds[value],
        # With tied weights features are scaled by default.
        "backbone.head_scale": config["d_model"] ** -0.5 if config.get("scale_decoder_outputs", tied) else 1.0,
        "begin_token": config.get("pad_token_id", 0) if begin is None else begin,
    }


def _export_t5_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    for key, allowed in (("mlp", list(T5_MLPS)), ("head_scale", [1.0, settings["backbone.d_model"] ** -0.5])):
        if settings[f"backbone.{key}"] not in allowed:
            choices = " or ".join(map(str, allowed))
            raise CheckpointError(
                f"{key}={settings[f'backbone.{key}']}: not in the Hugging Face format. Take {choices}."
            )
    return {
        "feed_forward_proj": T5_MLPS[settings["backbone.mlp"]],
        "scale_decoder_outputs": settings["backbone.head_scale"] != 1.0,
        "decoder_start_token_id": settings["begin_token"],
        "pad_token_id": settings["begin_token"],
    }


def _export_t5_weights(weights: Weights, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Weights:
    """Multiply queries by the factor on attention scores, which T5 lacks, and leave out unused sentinels."""
    factor = settings["backbone.attention_scale"] or config["d_kv"] ** -0.5
    found = Weights()
    for name, weight in weights.items():
        if name.endswith("Attention.q.weight"):
            weight = weight * factor
        if name in ("shared.weight", "lm_head.weight"):
            weight = weight[: config["vocab_size"]].clone()
        gated = "gated" in config["feed_forward_proj"]  # the second matrix is then numbered
        found[name.replace(".wi.", ".wi_1.") if gated else name] = weight
    return found


T5_MLPS = {"relu": "relu", "geglu": "gated-gelu"}


def _t5_attention(ours: str, theirs: str) -> list[WeightMapping]:
    parts = {"query": "q", "key": "k", "value": "v", "out": "o"}
    return [WeightMapping(f"{ours}.{a}.weight", f"{theirs}.{b}.weight") for a, b in parts.items()]


def _t5_stack(name: str, cross: bool) -> list[WeightMapping]:
    """Map a stack; sublayers 0, 1 and 2 are self-attention, cross-attention and MLP."""
    ours, theirs, last = f"net.{name}.blocks.{{}}", f"{name}.block.{{}}.layer", 2 if cross else 1
    looks_back = [
        WeightMapping(f"{ours}.norm_cross.weight", f"{theirs}.1.layer_norm.weight"),
        *_t5_attention(f"{ours}.cross", f"{theirs}.1.EncDecAttention"),
    ]
    return [
        WeightMapping(
            f"net.{name}.relative_bias.weight", f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        ),
        WeightMapping(f"{ours}.norm1.weight", f"{theirs}.0.layer_norm.weight"),
        *_t5_attention(f"{ours}.attention", f"{theirs}.0.SelfAttention"),
        *(looks_back if cross else []),
        WeightMapping(f"{ours}.norm2.weight", f"{theirs}.{last}.layer_norm.weight"),
        WeightMapping(f"{ours}.mlp.gate.weight", f"{theirs}.{last}.DenseReluDense.wi_0.weight"),
        WeightMapping(f"{ours}.mlp.up.weight", f"{theirs}.{last}.DenseReluDense.wi.weight"),
        WeightMapping(f"{ours}.mlp.out.weight", f"{theirs}.{last}.DenseReluDense.wo.weight"),
        WeightMapping(f"net.{name}.norm.weight", f"{name}.final_layer_norm.weight"),
    ]


T5 = Architecture(
    kind="t5",
    name="T5ForConditionalGeneration",
    model="t5",
    data=Pair,
    context=("n_positions", 512),
    sizes={
        "backbone.d_model": "d_model",
        "backbone.n_layers": "num_layers",
        "backbone.n_decoder": "num_decoder_layers",
        "backbone.n_heads": "num_heads",
        "backbone.d_head": "d_kv",
        "backbone.d_ff": "d_ff",
        "backbone.norm_eps": "layer_norm_epsilon",
        "backbone.dropout": "dropout_rate",
        "backbone.tie_weights": "tie_word_embeddings",
    },
    fixed_hparams={
        "backbone.name": "transformer_encoder_decoder",
        "backbone.position_encoding": "relative",
        "backbone.norm": "rmsnorm",
        "backbone.pre_norm": True,
        "backbone.bias": False,
        "backbone.qk_norm": False,
        "backbone.attention_scale": 1.0,
        "backbone.norm_embeddings": None,
        "backbone.head_bias": False,
        "num_sentinels": 0,
    },
    converted=("backbone.attention_scale", "num_sentinels"),
    required_config={
        "relative_attention_num_buckets": (NUM_BUCKETS,),
        "relative_attention_max_distance": (MAX_DISTANCE,),
        "is_encoder_decoder": (True,),
        "is_decoder": (False,),
        "tie_encoder_decoder": (False,),
    },
    defaults={
        "num_decoder_layers": 0,
        "d_kv": 64,
        "d_ff": 2048,
        "layer_norm_epsilon": 1e-6,
        "dropout_rate": 0.1,
        "tie_word_embeddings": True,
    },
    read=("feed_forward_proj", "scale_decoder_outputs", "dense_act_fn", "is_gated_act"),
    inert=("classifier_dropout",),
    weights=(
        WeightMapping("net.embedding.weight", "shared.weight"),
        *_t5_stack("encoder", cross=False),
        *_t5_stack("decoder", cross=True),
        WeightMapping("net.head.weight", "lm_head.weight"),
    ),
    copies={f"{name}.weight": "shared.weight" for name in ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head")},
    import_config=_import_t5_config,
    export_config=_export_t5_config,
    # With a gate the second matrix is numbered.
    import_weights=lambda weights, config, tokenizer: {k.replace(".wi_1.", ".wi."): w for k, w in weights.items()},
    export_weights=_export_t5_weights,
)
