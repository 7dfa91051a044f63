"""Tables of BART, mBART and Marian: encoder-decoders with one embedding for both texts and the head.

- BART has post-norm and a norm after the embeddings. mBART has pre-norm, and that norm too. Marian has post-norm alone.
- BART and mBART have learned positions, whose first two rows are unused. Marian's are sinusoids: here they become a
  learned table of the same numbers.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zoo.core.errors import CheckpointError
from zoo.core.spaces import Pair
from zoo.data.text.tokenizers.pretrained import Pretrained
from zoo.interop.huggingface.config import refuse
from zoo.interop.huggingface.mapping import Architecture, WeightMapping, Weights, pairs
from zoo.nn.blocks.position_encoding import sinusoidal

STACKS = ("encoder", "decoder")
PLACES = tuple(f"model.{name}.embed_positions.weight" for name in STACKS)
UNUSED = 2  # first rows of the tables of positions
BIAS = "final_logits_bias"
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu", "swish": "silu", "silu": "silu"}


def _import_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Activation, scale of embeddings and begin token; a check that both stacks have equal sizes.

    Raises:
        CheckpointError: sizes or an activation that our model does not have.
    """
    for theirs in ("attention_heads", "ffn_dim"):
        if config.get(f"decoder_{theirs}") not in (None, size := config.get(f"encoder_{theirs}")):
            refuse(f"decoder_{theirs}", config[f"decoder_{theirs}"], "seq2seq", f"Supported: {size}, as the encoder.")
    if config.get("decoder_vocab_size") not in (None, config["vocab_size"]):
        refuse("decoder_vocab_size", config["decoder_vocab_size"], "seq2seq", f"Supported: {config['vocab_size']}.")
    act = config.get("activation_function") or "gelu"
    if act not in ACTIVATIONS:
        refuse("activation_function", act, "seq2seq", f"Supported: {', '.join(ACTIVATIONS)}.")
    return {
        "backbone.mlp": ACTIVATIONS[act],
        "backbone.scale_embeddings": bool(config.get("scale_embedding", False)),
        "begin_token": config.get("decoder_start_token_id", 2 if config["model_type"] == "bart" else None),
        "source_affixes": True,
    }


def _export_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `_import_config`."""
    tokenizer = settings["tokenizer"]
    padding = tokenizer.named("pad_token") if isinstance(tokenizer, Pretrained) else None
    return {
        "activation_function": {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}[
            settings["backbone.mlp"]
        ],
        "scale_embedding": settings["backbone.scale_embeddings"],
        "decoder_start_token_id": settings["begin_token"],
        "decoder_attention_heads": settings["backbone.n_heads"],
        "decoder_ffn_dim": settings["backbone.d_ff"] or 4 * settings["backbone.d_model"],
        "pad_token_id": settings["begin_token"] if padding is None else padding,
    }


def _import_weights(weights: Weights, config: Mapping[str, Any], tokenizer: Pretrained | None) -> Weights:
    """Remove unused positions; a file without a bias of the head has zeros."""
    bias = weights.get(BIAS, torch.zeros(config["vocab_size"]))
    return weights | {name: weights[name][UNUSED:] for name in PLACES} | {BIAS: bias.flatten()}


def _export_weights(weights: Weights, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Weights:
    unused = weights[PLACES[0]].new_zeros(UNUSED, config["d_model"])
    padded = {name: torch.cat([unused, weights[name]]) for name in PLACES}
    return weights | padded | {BIAS: weights[BIAS][None]}


def _sinusoids(config: Mapping[str, Any]) -> Tensor:
    """Marian's positions (T, d): all sines, then all cosines."""
    table = sinusoidal(config["max_position_embeddings"], config["d_model"], dtype=torch.float64)
    return torch.cat([table[:, 0::2], table[:, 1::2]], dim=1).float()


def _import_marian_weights(weights: Weights, config: Mapping[str, Any], tokenizer: Pretrained | None) -> Weights:
    bias = weights.get(BIAS, torch.zeros(config["vocab_size"]))
    return {name: _sinusoids(config) for name in PLACES} | weights | {BIAS: bias.flatten()}


def _export_marian_weights(weights: Weights, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Weights:
    """Leave out the positions.

    Raises:
        CheckpointError: they were trained.
    """
    want = _sinusoids(config)
    if not all(torch.equal(weights[name], want) for name in PLACES):
        raise CheckpointError(
            "model_type='marian': the positions are not sinusoids, because they were trained. Freeze them, or train "
            "from BART."
        )
    return {name: w for name, w in weights.items() if name not in PLACES} | {BIAS: weights[BIAS][None]}


def _attention(ours: str, theirs: str) -> list[WeightMapping]:
    parts = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
    return [same for a, b in parts.items() for same in pairs(f"{ours}.{a}", f"{theirs}.{b}")]


def _stack(name: str, ends: Mapping[str, str]) -> list[WeightMapping]:
    """Map a stack; `ends` are the norms outside of blocks: our name -> theirs."""
    ours, theirs = f"net.{name}.blocks.{{}}", f"model.{name}.layers.{{}}"
    return [
        WeightMapping(f"net.{name}.position_embedding.weight", f"model.{name}.embed_positions.weight"),
        *_attention(f"{ours}.attention", f"{theirs}.self_attn"),
        *pairs(f"{ours}.norm1", f"{theirs}.self_attn_layer_norm"),
        *_attention(f"{ours}.cross", f"{theirs}.encoder_attn"),
        *pairs(f"{ours}.norm_cross", f"{theirs}.encoder_attn_layer_norm"),
        *pairs(f"{ours}.mlp.up", f"{theirs}.fc1"),
        *pairs(f"{ours}.mlp.out", f"{theirs}.fc2"),
        *pairs(f"{ours}.norm2", f"{theirs}.final_layer_norm"),
        *(same for a, b in ends.items() for same in pairs(f"net.{name}.{a}", f"model.{name}.{b}")),
    ]


def _weights(ends: Mapping[str, str]) -> tuple[WeightMapping, ...]:
    return (
        WeightMapping("net.embedding.weight", "model.shared.weight"),
        *(same for name in STACKS for same in _stack(name, ends)),
        WeightMapping("net.head_bias", BIAS),
    )


BART = Architecture(
    kind="bart",
    name="BartForConditionalGeneration",
    model="seq2seq",
    data=Pair,
    context=("max_position_embeddings", 1024),
    sizes={
        "backbone.d_model": "d_model",
        "backbone.n_layers": "encoder_layers",
        "backbone.n_decoder": "decoder_layers",
        "backbone.n_heads": "encoder_attention_heads",
        "backbone.d_ff": "encoder_ffn_dim",
        "backbone.dropout": "dropout",
    },
    fixed_hparams={
        "backbone.name": "transformer_encoder_decoder",
        "backbone.position_encoding": "learned",
        "backbone.norm": "layernorm",
        "backbone.norm_eps": 1e-5,
        "backbone.pre_norm": False,
        "backbone.norm_embeddings": True,
        "backbone.bias": True,
        "backbone.qk_norm": False,
        "backbone.head_bias": True,
        "backbone.head_scale": 1.0,
        "backbone.tie_weights": True,
    },
    required_config={"tie_word_embeddings": (True,), "is_encoder_decoder": (True,), "is_decoder": (False,)},
    defaults={"decoder_layers": 12, "encoder_ffn_dim": 4096, "dropout": 0.1},
    read=(
        "activation_function",
        "decoder_attention_heads",
        "decoder_ffn_dim",
        "scale_embedding",
    ),
    own=("backbone.mlp", "backbone.scale_embeddings", "begin_token", "source_affixes"),
    choices={"backbone.mlp": tuple(dict.fromkeys(ACTIVATIONS.values()))},
    inert=(
        "activation_dropout", "add_bias_logits", "add_final_layer_norm", "attention_dropout", "classif_dropout",
        "classifier_dropout", "decoder_layerdrop", "encoder_layerdrop", "extra_pos_embeddings",
        "force_bos_token_to_be_generated", "init_std", "normalize_before", "normalize_embedding", "num_hidden_layers",
        "static_position_embeddings",
    ),
    weights=_weights({"norm": "layernorm_embedding"}),
    ignored=r"model\.(en|de)coder\.version$",
    copies={
        f"{name}.weight": "model.shared.weight"
        for name in ("model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head")
    },
    import_config=_import_config,
    export_config=_export_config,
    import_weights=_import_weights,
    export_weights=_export_weights,
)  # fmt: skip

MBART = replace(
    BART,
    kind="mbart",
    name="MBartForConditionalGeneration",
    fixed_hparams={**BART.fixed_hparams, "backbone.pre_norm": True},
    weights=_weights({"norm_embedding": "layernorm_embedding", "norm": "layer_norm"}),
)

MARIAN = replace(
    BART,
    kind="marian",
    name="MarianMTModel",
    fixed_hparams={**BART.fixed_hparams, "backbone.norm_embeddings": False},
    required_config={**BART.required_config, "share_encoder_decoder_embeddings": (True,)},
    read=(*BART.read, "decoder_vocab_size"),
    weights=_weights({}),
    import_weights=_import_marian_weights,
    export_weights=_export_marian_weights,
)

TRANSLATORS = (BART, MBART, MARIAN)
