"""Tables that map architectures of the Hugging Face format to models of the zoo."""

from zoo.core.spaces import Tokens
from zoo.interop.huggingface.bart import TRANSLATORS
from zoo.interop.huggingface.decoders import DECODERS
from zoo.interop.huggingface.encoders import ENCODERS
from zoo.interop.huggingface.llama import LLAMA
from zoo.interop.huggingface.mapping import Architecture, WeightMapping, fused_attention, pairs
from zoo.interop.huggingface.t5 import T5
from zoo.interop.huggingface.xlnet import XLNET

GPT2 = Architecture(
    kind="gpt2",
    name="GPT2LMHeadModel",
    model="language_model",
    data=Tokens,
    context=("n_positions", 1024),
    sizes={
        "backbone.d_model": "n_embd",
        "backbone.n_layers": "n_layer",
        "backbone.n_heads": "n_head",
        "backbone.d_ff": "n_inner",
        "backbone.norm_eps": "layer_norm_epsilon",
        "backbone.dropout": "resid_pdrop",
    },
    fixed_hparams={
        "backbone.name": "transformer",
        "backbone.position_encoding": "learned",
        "backbone.norm": "layernorm",
        "backbone.mlp": "gelu_tanh",
        "backbone.bias": True,
        "backbone.qk_norm": False,
        "backbone.tie_weights": True,
        "backbone.n_kv_heads": 0,
    },
    required_config={
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_by_inverse_layer_idx": (False,),
        "scale_attn_weights": (True,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
        "is_encoder_decoder": (False,),
    },
    defaults={"layer_norm_epsilon": 1e-5, "resid_pdrop": 0.1},
    inert=(
        "attn_pdrop",
        "embd_pdrop",
        "predict_special_tokens",
        "reorder_and_upcast_attn",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
    ),
    weights=(
        WeightMapping("net.embedding.weight", "wte.weight"),
        WeightMapping("net.position_embedding.weight", "wpe.weight"),
        *pairs("net.blocks.{}.norm1", "h.{}.ln_1"),
        WeightMapping(fused_attention("weight"), "h.{}.attn.c_attn.weight", transposed=True),
        WeightMapping(fused_attention("bias"), "h.{}.attn.c_attn.bias"),
        *pairs("net.blocks.{}.attention.out", "h.{}.attn.c_proj", transposed=True),
        *pairs("net.blocks.{}.norm2", "h.{}.ln_2"),
        *pairs("net.blocks.{}.mlp.up", "h.{}.mlp.c_fc", transposed=True),
        *pairs("net.blocks.{}.mlp.out", "h.{}.mlp.c_proj", transposed=True),
        *pairs("net.norm", "ln_f"),
    ),
    prefix="transformer.",
    ignored=r"h\.\d+\.attn\.(masked_)?bias$",  # the causal mask as a buffer
    copies={"lm_head.weight": "wte.weight"},
)


ARCHITECTURES = (GPT2, LLAMA, *ENCODERS, T5, *TRANSLATORS, *DECODERS, XLNET)
