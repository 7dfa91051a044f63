"""Tables of decoder-only architectures of the Hugging Face format beside GPT-2 and Llama.

Most differ from Llama in a few settings, and are written as differences.
"""

from dataclasses import replace
from typing import Any

from zoo.interop.huggingface import layers
from zoo.interop.huggingface.gpt_neox import GPT_NEOX
from zoo.interop.huggingface.llama import LLAMA
from zoo.interop.huggingface.mamba2 import MAMBA2
from zoo.interop.huggingface.mapping import WeightMapping, fused_attention
from zoo.interop.huggingface.opt import OPT

BLOCK, THEIRS = "net.blocks.{}", "model.layers.{}"
WINDOW = ("backbone.window", "backbone.global_every")
BIASES = tuple(
    WeightMapping(f"{BLOCK}.attention.{ours}.bias", f"{THEIRS}.self_attn.{theirs}_proj.bias")
    for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"))
)
QK_NORMS = tuple(
    WeightMapping(f"{BLOCK}.attention.{ours}_norm.weight", f"{THEIRS}.self_attn.{theirs}_norm.weight")
    for ours, theirs in (("query", "q"), ("key", "k"))
)


def _sizes(*without: str) -> dict[str, str]:
    return {ours: theirs for ours, theirs in LLAMA.sizes.items() if theirs not in without}


def _without(*keys: str) -> dict[str, tuple[Any, ...]]:
    return {key: values for key, values in LLAMA.required_config.items() if key not in keys}


def _weights(*without: str) -> tuple[WeightMapping, ...]:
    return tuple(w for w in LLAMA.weights if not any(part in w.theirs for part in without))


MISTRAL = replace(
    LLAMA,
    kind="mistral",
    name="MistralForCausalLM",
    context=("max_position_embeddings", 131072),
    required_config=_without("attention_bias", "mlp_bias"),
    defaults={**LLAMA.defaults, "num_key_value_heads": 8, "intermediate_size": 14336},
    read=(*LLAMA.read, "sliding_window"),
    own=WINDOW[:1],
    import_config=layers.import_mistral,
    export_config=layers.export_mistral,
)

MIXTRAL = replace(
    MISTRAL,
    kind="mixtral",
    name="MixtralForCausalLM",
    sizes={
        **LLAMA.sizes,
        "backbone.n_experts": "num_local_experts",
        "backbone.n_active_experts": "num_experts_per_tok",
    },
    needed=("backbone.n_experts",),
    defaults={**MISTRAL.defaults, "rms_norm_eps": 1e-5, "num_local_experts": 8, "num_experts_per_tok": 2},
    inert=(*LLAMA.inert, "output_router_logits", "router_aux_loss_coef", "router_jitter_noise"),
    weights=(
        *_weights(".mlp."),
        WeightMapping(f"{BLOCK}.mlp.router.weight", f"{THEIRS}.block_sparse_moe.gate.weight"),
        *(
            WeightMapping(f"{BLOCK}.mlp.experts.{{}}.{a}.weight", f"{THEIRS}.block_sparse_moe.experts.{{}}.{b}.weight")
            for a, b in (("gate", "w1"), ("out", "w2"), ("up", "w3"))
        ),
    ),
    import_config=layers.import_mixtral,
)

QWEN2 = replace(
    LLAMA,
    kind="qwen2",
    name="Qwen2ForCausalLM",
    context=("max_position_embeddings", 32768),
    sizes=_sizes("head_dim"),
    fixed_hparams={**LLAMA.fixed_hparams, "backbone.qkv_bias": True},
    required_config=_without("attention_bias", "mlp_bias"),
    defaults={**LLAMA.defaults, "num_key_value_heads": 32, "intermediate_size": 22016},
    read=(*LLAMA.read, "sliding_window", "use_sliding_window", "max_window_layers", "layer_types"),
    own=WINDOW,
    weights=(*LLAMA.weights, *BIASES),
    import_config=layers.import_qwen,
    export_config=layers.export_qwen,
)

QWEN3 = replace(
    QWEN2,
    kind="qwen3",
    name="Qwen3ForCausalLM",
    sizes=LLAMA.sizes,
    fixed_hparams={**LLAMA.fixed_hparams, "backbone.qk_norm_gain": True},
    required_config=_without("mlp_bias"),
    defaults={**QWEN2.defaults, "head_dim": 128},
    weights=(*LLAMA.weights, *QK_NORMS),
)

GEMMA = replace(
    LLAMA,
    kind="gemma",
    name="GemmaForCausalLM",
    context=("max_position_embeddings", 8192),
    fixed_hparams={
        **LLAMA.fixed_hparams,
        "backbone.norm": "rmsnorm_zero_centered",
        "backbone.mlp": "geglu",
        "backbone.scale_embeddings": True,
    },
    required_config={
        **_without("mlp_bias", "hidden_act"),
        "hidden_act": ("gelu_pytorch_tanh", "gelu"),  # `transformers` reads both as the first
        "hidden_activation": ("gelu_pytorch_tanh",),
        "use_bidirectional_attention": (False,),
    },
    defaults={
        **LLAMA.defaults,
        "num_key_value_heads": 16,
        "intermediate_size": 24576,
        "head_dim": 256,
        "tie_word_embeddings": True,
    },
)

GEMMA2 = replace(
    GEMMA,
    kind="gemma2",
    name="Gemma2ForCausalLM",
    fixed_hparams={**GEMMA.fixed_hparams, "backbone.norm_place": "both"},
    required_config={
        **_without("mlp_bias", "hidden_act"),
        "hidden_activation": ("gelu_pytorch_tanh",),
        "hidden_act": ("gelu_pytorch_tanh",),
        "use_bidirectional_attention": (False,),
    },
    needed=("backbone.window",),
    defaults={**GEMMA.defaults, "num_key_value_heads": 4, "intermediate_size": 9216},
    read=(
        *LLAMA.read,
        "sliding_window",
        "layer_types",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "query_pre_attn_scalar",
    ),
    own=(*WINDOW, "backbone.softcap", "backbone.logit_softcap", "backbone.attention_scale"),
    inert=(*LLAMA.inert, "cache_implementation"),
    weights=(
        *_weights("post_attention_layernorm"),
        WeightMapping(f"{BLOCK}.norm1_after.weight", f"{THEIRS}.post_attention_layernorm.weight"),
        WeightMapping(f"{BLOCK}.norm2.weight", f"{THEIRS}.pre_feedforward_layernorm.weight"),
        WeightMapping(f"{BLOCK}.norm2_after.weight", f"{THEIRS}.post_feedforward_layernorm.weight"),
    ),
    import_config=layers.import_gemma2,
    export_config=layers.export_gemma2,
)

GEMMA3 = replace(
    GEMMA2,
    kind="gemma3_text",
    name="Gemma3ForCausalLM",
    context=("max_position_embeddings", 131072),
    fixed_hparams={**GEMMA2.fixed_hparams, "backbone.qk_norm_gain": True},
    read=(*GEMMA2.read, "rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern"),
    own=(*GEMMA2.own, "backbone.window_theta"),
    weights=(*GEMMA2.weights, *QK_NORMS),
    import_config=layers.import_gemma3,
    export_config=layers.export_gemma3,
)

PHI3 = replace(
    LLAMA,
    kind="phi3",
    name="Phi3ForCausalLM",
    context=("max_position_embeddings", 4096),
    sizes=_sizes("head_dim"),
    required_config=_without("mlp_bias"),
    defaults={**LLAMA.defaults, "intermediate_size": 8192, "rms_norm_eps": 1e-5},
    read=(*LLAMA.read, "sliding_window", "original_max_position_embeddings"),
    own=("backbone.window", "backbone.partial_rotary_factor"),
    inert=(*LLAMA.inert, "embd_pdrop", "resid_pdrop"),
    weights=(
        *_weights("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"),
        WeightMapping(fused_attention("weight"), f"{THEIRS}.self_attn.qkv_proj.weight"),
        WeightMapping(
            tuple(f"{BLOCK}.mlp.{part}.weight" for part in ("gate", "up")), f"{THEIRS}.mlp.gate_up_proj.weight"
        ),
    ),
    import_config=layers.import_phi3,
    export_config=layers.export_phi3,
)

DECODERS = (MISTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3, PHI3, GPT_NEOX, OPT, MIXTRAL, MAMBA2)
