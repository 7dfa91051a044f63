"""Table of Mamba 2."""

import math
from collections.abc import Mapping
from typing import Any

from zoo.core.spaces import Tokens
from zoo.interop.huggingface.config import refuse
from zoo.interop.huggingface.mapping import Architecture, WeightMapping, pairs

UNLIMITED = (math.inf, {"__float__": "Infinity"})  # the second one is how `transformers` 5 writes it
MIXER, THEIRS = "net.blocks.{}.mixer", "backbone.layers.{}.mixer"


def _import_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing; a check of the number of heads and of the limits of steps.

    Raises:
        CheckpointError: heads of another total width, or steps that are clipped.
    """
    width = config["hidden_size"] * config.get("expand", 2)
    heads, found = width // config.get("head_dim", 64), config.get("num_heads", 128)
    if found != heads:
        refuse("num_heads", found, "language_model", f"Supported: {heads}, expand * hidden_size / head_dim.")
    low, high = config.get("time_step_limit") or (0.0, math.inf)
    if low > 0 or high not in UNLIMITED:
        refuse("time_step_limit", [low, high], "language_model", "Supported: [0.0, Infinity].")
    return {}


def _export_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `_import_config`."""
    return {"num_heads": settings["backbone.expand"] * settings["backbone.d_model"] // settings["backbone.d_head"]}


MAMBA2 = Architecture(
    kind="mamba2",
    name="Mamba2ForCausalLM",
    model="language_model",
    data=Tokens,
    context=("max_position_embeddings", 2048),  # written by the zoo alone: the state has no positions
    sizes={
        "backbone.d_model": "hidden_size",
        "backbone.n_layers": "num_hidden_layers",
        "backbone.d_head": "head_dim",
        "backbone.d_state": "state_size",
        "backbone.expand": "expand",
        "backbone.groups": "n_groups",
        "backbone.kernel": "conv_kernel",
        "backbone.norm_eps": "layer_norm_epsilon",
        "backbone.bias": "use_bias",
        "backbone.tie_weights": "tie_word_embeddings",
    },
    fixed_hparams={"backbone.name": "mamba2"},
    required_config={"hidden_act": ("silu", "swish"), "use_conv_bias": (True,)},
    defaults={
        "head_dim": 64,
        "state_size": 128,
        "expand": 2,
        "n_groups": 8,
        "conv_kernel": 4,
        "layer_norm_epsilon": 1e-5,
        "use_bias": False,
        "tie_word_embeddings": False,
    },
    read=("num_heads", "time_step_limit"),
    inert=(
        "chunk_size",
        "rescale_prenorm_residual",
        "residual_in_fp32",
        "rms_norm",
        "time_step_floor",
        "time_step_max",
        "time_step_min",
        "time_step_rank",
    ),
    weights=(
        WeightMapping("net.embedding.weight", "backbone.embeddings.weight"),
        WeightMapping("net.blocks.{}.norm.weight", "backbone.layers.{}.norm.weight"),
        *pairs(f"{MIXER}.enter", f"{THEIRS}.in_proj"),
        *pairs(f"{MIXER}.conv", f"{THEIRS}.conv1d"),
        WeightMapping(f"{MIXER}.step_bias", f"{THEIRS}.dt_bias"),
        WeightMapping(f"{MIXER}.log_rate", f"{THEIRS}.A_log"),
        WeightMapping(f"{MIXER}.skip", f"{THEIRS}.D"),
        WeightMapping(f"{MIXER}.norm.weight", f"{THEIRS}.norm.weight"),
        *pairs(f"{MIXER}.leave", f"{THEIRS}.out_proj"),
        WeightMapping("net.norm.weight", "backbone.norm_f.weight"),
        WeightMapping("net.head.weight", "lm_head.weight"),
    ),
    copies={"lm_head.weight": "backbone.embeddings.weight"},
    import_config=_import_config,
    export_config=_export_config,
)
