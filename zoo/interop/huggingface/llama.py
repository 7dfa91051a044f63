"""Table of Llama, and of models in its format such as SmolLM."""

from zoo.core.spaces import Tokens
from zoo.interop.huggingface.config import ROPE_SOURCES, export_rope, import_rope
from zoo.interop.huggingface.mapping import Architecture, WeightMapping


def _attention(ours: str, theirs: str) -> list[WeightMapping]:
    parts = {"query": "q", "key": "k", "value": "v", "out": "o"}
    return [WeightMapping(f"{ours}.{a}.weight", f"{theirs.replace('*', b)}.weight") for a, b in parts.items()]


LLAMA = Architecture(
    kind="llama",
    name="LlamaForCausalLM",
    model="language_model",
    data=Tokens,
    context=("max_position_embeddings", 2048),
    sizes={
        "backbone.d_model": "hidden_size",
        "backbone.n_layers": "num_hidden_layers",
        "backbone.n_heads": "num_attention_heads",
        "backbone.n_kv_heads": "num_key_value_heads",
        "backbone.d_ff": "intermediate_size",
        "backbone.norm_eps": "rms_norm_eps",
        "backbone.d_head": "head_dim",
        "backbone.tie_weights": "tie_word_embeddings",
    },
    fixed_hparams={
        "backbone.name": "transformer",
        "backbone.position_encoding": "rotary",
        "backbone.norm": "rmsnorm",
        "backbone.mlp": "swiglu",
        "backbone.bias": False,
        "backbone.qk_norm": False,
    },
    required_config={
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "is_encoder_decoder": (False,),
    },
    defaults={"num_key_value_heads": 0, "intermediate_size": 11008, "rms_norm_eps": 1e-6, "tie_word_embeddings": False},
    read=ROPE_SOURCES,
    inert=("attention_dropout", "pretraining_tp"),
    weights=(
        WeightMapping("net.embedding.weight", "model.embed_tokens.weight"),
        WeightMapping("net.blocks.{}.norm1.weight", "model.layers.{}.input_layernorm.weight"),
        *_attention("net.blocks.{}.attention", "model.layers.{}.self_attn.*_proj"),
        WeightMapping("net.blocks.{}.norm2.weight", "model.layers.{}.post_attention_layernorm.weight"),
        WeightMapping("net.blocks.{}.mlp.gate.weight", "model.layers.{}.mlp.gate_proj.weight"),
        WeightMapping("net.blocks.{}.mlp.up.weight", "model.layers.{}.mlp.up_proj.weight"),
        WeightMapping("net.blocks.{}.mlp.out.weight", "model.layers.{}.mlp.down_proj.weight"),
        WeightMapping("net.norm.weight", "model.norm.weight"),
        WeightMapping("net.head.weight", "lm_head.weight"),
    ),
    ignored=r".*rotary_emb\.inv_freq$",
    copies={"lm_head.weight": "model.embed_tokens.weight"},
    import_config=import_rope,
    export_config=export_rope,
)
