"""Tables that map architectures of the Hugging Face format to models of the zoo."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.pretrained import Pretrained
from zoo.interop.huggingface.decoders import DECODERS
from zoo.interop.huggingface.llama import LLAMA
from zoo.interop.huggingface.mapping import Architecture, WeightMapping, Weights, fused_attention, pairs
from zoo.interop.huggingface.t5 import T5

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


def _import_bert_weights(weights: Weights, config: Mapping[str, Any], tokenizer: Pretrained | None) -> Weights:
    """Add the embedding of segment 0 to all positions, and append the mask token to the vocabulary."""
    weights = {re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", k)): w for k, w in weights.items()}  # of old files
    places, segments = "bert.embeddings.position_embeddings.weight", "bert.embeddings.token_type_embeddings.weight"
    weights[places] = weights[places] + weights.pop(segments)[0]
    table = weights["bert.embeddings.word_embeddings.weight"]
    hidden = None if tokenizer is None else tokenizer.named("mask_token")
    weights["bert.embeddings.word_embeddings.weight"] = torch.cat(
        [table, table[-1 if hidden is None else hidden][None]]
    )
    return weights


def _export_bert_weights(weights: Weights, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Weights:
    tokenizer = settings["tokenizer"]
    *table, hidden = weights["bert.embeddings.word_embeddings.weight"].unbind()
    if tokenizer is not None and (place := tokenizer.named("mask_token")) is not None:
        table[place] = hidden
    width = len(hidden)
    return weights | {
        "bert.embeddings.word_embeddings.weight": torch.stack(table),
        "bert.embeddings.token_type_embeddings.weight": torch.zeros(2, width),
        "cls.predictions.decoder.bias": weights["cls.predictions.bias"].clone(),
    }


def _bert_block(ours: str, theirs: str) -> list[WeightMapping]:
    return pairs(f"net.blocks.{{}}.{ours}", f"bert.encoder.layer.{{}}.{theirs}")


BERT = Architecture(
    kind="bert",
    name="BertForMaskedLM",
    model="bert",
    data=Tokens,
    context=("max_position_embeddings", 512),
    sizes={
        "backbone.d_model": "hidden_size",
        "backbone.n_layers": "num_hidden_layers",
        "backbone.n_heads": "num_attention_heads",
        "backbone.d_ff": "intermediate_size",
        "backbone.norm_eps": "layer_norm_eps",
        "backbone.dropout": "hidden_dropout_prob",
    },
    fixed_hparams={
        "backbone.name": "transformer_encoder",
        "backbone.position_encoding": "learned",
        "backbone.norm": "layernorm",
        "backbone.norm_place": "after",
        "backbone.mlp": "gelu",
    },
    required_config={
        "hidden_act": ("gelu",),
        "is_decoder": (False,),
        "tie_word_embeddings": (True,),
        "type_vocab_size": (2,),
        "add_cross_attention": (False,),
        "position_embedding_type": ("absolute",),
        "is_encoder_decoder": (False,),
    },
    defaults={"intermediate_size": 3072, "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1},
    inert=(
        "attention_probs_dropout_prob",
        "classifier_dropout",
        "directionality",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
    ),
    weights=(
        WeightMapping("net.embedding.weight", "bert.embeddings.word_embeddings.weight"),
        WeightMapping("net.position_embedding.weight", "bert.embeddings.position_embeddings.weight"),
        *pairs("net.norm", "bert.embeddings.LayerNorm"),
        *_bert_block("attention.query", "attention.self.query"),
        *_bert_block("attention.key", "attention.self.key"),
        *_bert_block("attention.value", "attention.self.value"),
        *_bert_block("attention.out", "attention.output.dense"),
        *_bert_block("norm1", "attention.output.LayerNorm"),
        *_bert_block("mlp.up", "intermediate.dense"),
        *_bert_block("mlp.out", "output.dense"),
        *_bert_block("norm2", "output.LayerNorm"),
        *pairs("net.head.up", "cls.predictions.transform.dense"),
        *pairs("net.head.norm", "cls.predictions.transform.LayerNorm"),
        WeightMapping("net.head.bias", "cls.predictions.bias"),
    ),
    ignored=r"bert\.pooler\.|cls\.seq_relationship\.|bert\.embeddings\.position_ids",
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    import_weights=_import_bert_weights,
    export_weights=_export_bert_weights,
)


ARCHITECTURES = (GPT2, LLAMA, BERT, T5, *DECODERS)
