"""Table of XLNet.

Its matrices have an axis of heads. Embeddings of segments are relative, so that they change nothing within one segment:
they are not read, and become zero in an export.
"""

from collections.abc import Mapping
from typing import Any

from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.pretrained import Pretrained
from zoo.interop.huggingface.config import refuse
from zoo.interop.huggingface.mapping import Architecture, WeightMapping, Weights, pairs

OURS, THEIRS = "net.blocks.{}", "transformer.layer.{}"
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "silu"}
MATRICES = {"query": "q", "key": "k", "value": "v", "position": "r", "out": "o"}
BIASES = {"content_bias": "r_w_bias", "position_bias": "r_r_bias"}
START = "transformer.mask_emb"


def _import_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The activation, and a check of the width of heads.

    Raises:
        CheckpointError: an activation or width that our model does not have.
    """
    act, size = config.get("ff_activation") or "gelu", config["d_model"] // config["n_head"]
    if act not in ACTIVATIONS:
        refuse("ff_activation", act, "xlnet", f"Supported: {', '.join(ACTIVATIONS)}.")
    if config.get("d_head") not in (None, size):
        refuse("d_head", config["d_head"], "xlnet", f"Supported: {size}, d_model / n_head.")
    return {"backbone.mlp": ACTIVATIONS[act]}


def _export_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `_import_config`."""
    act = {ours: theirs for theirs, ours in ACTIVATIONS.items()}[settings["backbone.mlp"]]
    return {"ff_activation": act, "d_head": settings["backbone.d_model"] // settings["backbone.n_heads"]}


def _import_weights(weights: Weights, config: Mapping[str, Any], tokenizer: Pretrained | None) -> Weights:
    """Matrices (d, H, D) as (d, H D), and biases (H, D) as (H D,)."""
    flat = {}
    for name, weight in weights.items():
        last = name.rpartition(".")[2]
        if last in MATRICES.values() and weight.ndim == 3:
            weight = weight.flatten(1)
        elif last in BIASES.values() or name == START:
            weight = weight.flatten()
        flat[name] = weight
    return flat


def _export_weights(weights: Weights, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Weights:
    """Inverse of `_import_weights`, with zeros for segments."""
    heads, whole = (config["n_head"], config["d_head"]), dict[str, Any]()
    for name, weight in weights.items():
        before, _, last = name.rpartition(".")
        if last in MATRICES.values():
            weight = weight.unflatten(1, heads)
        elif last in BIASES.values():
            weight = weight.unflatten(0, heads)
        elif name == START:
            weight = weight[None, None]
        whole[name] = weight
        if last == BIASES["content_bias"]:
            whole |= {f"{before}.r_s_bias": weight.new_zeros(heads), f"{before}.seg_embed": weight.new_zeros(2, *heads)}
    return whole


XLNET = Architecture(
    kind="xlnet",
    name="XLNetLMHeadModel",
    model="xlnet",
    data=Tokens,
    context=("n_positions", 512),  # written by the zoo alone: XLNet has relative positions, and 512 in pre-training
    sizes={
        "backbone.d_model": "d_model",
        "backbone.n_layers": "n_layer",
        "backbone.n_heads": "n_head",
        "backbone.d_ff": "d_inner",
        "backbone.norm_eps": "layer_norm_eps",
        "backbone.dropout": "dropout",
    },
    fixed_hparams={"backbone.name": "xlnet", "predicted_share": 1 / 6},
    converted=("predicted_share",),  # of the training alone
    required_config={
        "attn_type": ("bi",),
        "bi_data": (False,),
        "clamp_len": (-1, 0),
        "same_length": (False,),
        "untie_r": (True,),
        "tie_word_embeddings": (True,),
    },
    defaults={"d_inner": 4096, "layer_norm_eps": 1e-12, "dropout": 0.1},
    read=("ff_activation", "d_head"),
    own=("backbone.mlp",),
    choices={"backbone.mlp": tuple(ACTIVATIONS.values())},
    inert=(
        "end_n_top",
        "mem_len",
        "n_token",
        "reuse_len",
        "start_n_top",
        "summary_activation",
        "summary_last_dropout",
        "summary_type",
        "summary_use_proj",
        "use_mems_eval",
        "use_mems_train",
    ),
    weights=(
        WeightMapping("net.embedding.weight", "transformer.word_embedding.weight"),
        WeightMapping("net.start", START),
        *(
            WeightMapping(f"{OURS}.attention.{a}.weight", f"{THEIRS}.rel_attn.{b}", transposed=b != "o")
            for a, b in MATRICES.items()
        ),
        *(WeightMapping(f"{OURS}.attention.{a}", f"{THEIRS}.rel_attn.{b}") for a, b in BIASES.items()),
        *pairs(f"{OURS}.norm1", f"{THEIRS}.rel_attn.layer_norm"),
        *pairs(f"{OURS}.mlp.up", f"{THEIRS}.ff.layer_1"),
        *pairs(f"{OURS}.mlp.out", f"{THEIRS}.ff.layer_2"),
        *pairs(f"{OURS}.norm2", f"{THEIRS}.ff.layer_norm"),
        WeightMapping("net.bias", "lm_loss.bias"),
    ),
    ignored=r".*\.(seg_embed|r_s_bias)$",
    copies={"lm_loss.weight": "transformer.word_embedding.weight"},
    import_config=_import_config,
    export_config=_export_config,
    import_weights=_import_weights,
    export_weights=_export_weights,
)
