"""Tables of BERT, RoBERTa, DistilBERT and ELECTRA.

All are a post-norm encoder with learned positions, and a head that predicts masked tokens, which a file may lack.
Names of weights differ, and:

- BERT, RoBERTa and ELECTRA have embeddings of segments. Ours is without: segment 0 is part of the positions.
- RoBERTa's positions start after the padding token's id: the rows before are unused.
- ELECTRA's published encoders are discriminators: they have a head that finds replaced tokens, which is not read.
- Our mask token comes after the vocabulary. Theirs is in it.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from zoo.core.errors import CheckpointError
from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.pretrained import Pretrained
from zoo.interop.huggingface.config import refuse
from zoo.interop.huggingface.mapping import Architecture, WeightMapping, Weights, pairs

PADDING = 1  # token of padding of RoBERTa by default


def _tables(weights: Weights) -> tuple[str, str, str]:
    """Names of the tables of words, positions and segments."""
    last = "embeddings.word_embeddings.weight"
    words = next((name for name in weights if name.endswith(last)), last)
    return words, words.replace("word_", "position_"), words.replace("word_", "token_type_")


def roberta_unused_positions(config: Mapping[str, Any]) -> int:
    """Rows of RoBERTa's table of positions up to the padding token's."""
    padding = config.get("pad_token_id")
    return (PADDING if padding is None else int(padding)) + 1


def _import_weights(weights: Weights, config: Mapping[str, Any], tokenizer: Pretrained | None) -> Weights:
    """Add the embedding of segment 0 to all positions, and append the mask token to the vocabulary."""
    weights = {re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", k)): w for k, w in weights.items()}  # of old files
    words, places, segments = _tables(weights)
    if config["model_type"] != "distilbert":
        weights[places] = weights[places] + weights.pop(segments)[0]
    table = weights[words]
    hidden = None if tokenizer is None else tokenizer.named("mask_token")
    weights[words] = torch.cat([table, table[-1 if hidden is None else hidden][None]])
    return weights


def _export_weights(weights: Weights, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Weights:
    tokenizer = settings["tokenizer"]
    words, _, segments = _tables(weights)
    *table, hidden = weights[words].unbind()
    if tokenizer is not None and (place := tokenizer.named("mask_token")) is not None:
        table[place] = hidden
    weights = weights | {words: torch.stack(table)}
    if "type_vocab_size" in config:
        weights[segments] = torch.zeros(config["type_vocab_size"], len(hidden))
    return weights


def _import_roberta_weights(weights: Weights, config: Mapping[str, Any], tokenizer: Pretrained | None) -> Weights:
    weights = _import_weights(weights, config, tokenizer)
    places = _tables(weights)[1]
    return weights | {places: weights[places][roberta_unused_positions(config) :]}


def _export_roberta_weights(weights: Weights, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Weights:
    weights = _export_weights(weights, config, settings)
    places = weights[name := _tables(weights)[1]]
    unused = places.new_zeros(roberta_unused_positions(config), places.shape[1])
    return weights | {name: torch.cat([unused, places])}


def _export_roberta_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The padding token, which texts do not contain: RoBERTa does not count it as a position.

    Raises:
        CheckpointError: a tokenizer without one.
    """
    tokenizer = settings["tokenizer"]
    if tokenizer is None:
        return {"pad_token_id": PADDING}
    padding = tokenizer.named("pad_token") if isinstance(tokenizer, Pretrained) else None
    if padding is None:
        raise CheckpointError("model_type='roberta': the tokenizer has no padding token. Export as bert.")
    return {"pad_token_id": padding}


def _import_electra_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing; a check that embeddings have the width of the model.

    Raises:
        CheckpointError: they do not.
    """
    width = config.get("embedding_size", 128)
    if width != config["hidden_size"]:
        refuse("embedding_size", width, "bert", f"Supported: {config['hidden_size']}, the width.")
    return {}


def _weights(stem: str, layer: str, block: Mapping[str, str], head: Mapping[str, str]) -> tuple[WeightMapping, ...]:
    """Mapping of all weights.

    Args:
        stem: prefix of the weights of the encoder.
        layer: of a block.
        block: our name in a block -> theirs.
        head: our name in the head -> theirs.
    """
    return (
        WeightMapping("net.embedding.weight", f"{stem}embeddings.word_embeddings.weight"),
        WeightMapping("net.position_embedding.weight", f"{stem}embeddings.position_embeddings.weight"),
        *pairs("net.norm", f"{stem}embeddings.LayerNorm"),
        *(same for a, b in block.items() for same in pairs(f"net.blocks.{{}}.{a}", f"{stem}{layer}.{{}}.{b}")),
        *pairs("net.head.up", head["up"]),
        *pairs("net.head.norm", head["norm"]),
        WeightMapping("net.head.bias", head["bias"]),
    )


BERT_BLOCK = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.out": "output.dense",
    "norm2": "output.LayerNorm",
}
DISTILBERT_BLOCK = {
    "attention.query": "attention.q_lin",
    "attention.key": "attention.k_lin",
    "attention.value": "attention.v_lin",
    "attention.out": "attention.out_lin",
    "norm1": "sa_layer_norm",
    "mlp.up": "ffn.lin1",
    "mlp.out": "ffn.lin2",
    "norm2": "output_layer_norm",
}

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
        "type_vocab_size": (2, 1),
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
    base="bert.",
    base_name="BertModel",
    head="cls.predictions.bias",
    weights=_weights(
        "bert.",
        "encoder.layer",
        BERT_BLOCK,
        {
            "up": "cls.predictions.transform.dense",
            "norm": "cls.predictions.transform.LayerNorm",
            "bias": "cls.predictions.bias",
        },
    ),
    ignored=r"bert\.pooler\.|cls\.seq_relationship\.|bert\.embeddings\.position_ids",
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    import_weights=_import_weights,
    export_weights=_export_weights,
)

ROBERTA = replace(
    BERT,
    kind="roberta",
    name="RobertaForMaskedLM",
    unused_positions=roberta_unused_positions,
    required_config={**BERT.required_config, "type_vocab_size": (1, 2)},
    inert=("attention_probs_dropout_prob", "classifier_dropout"),
    base="roberta.",
    base_name="RobertaModel",
    head="lm_head.bias",
    weights=_weights(
        "roberta.",
        "encoder.layer",
        BERT_BLOCK,
        {"up": "lm_head.dense", "norm": "lm_head.layer_norm", "bias": "lm_head.bias"},
    ),
    ignored=r"roberta\.pooler\.|roberta\.embeddings\.position_ids",
    copies={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    export_config=_export_roberta_config,
    import_weights=_import_roberta_weights,
    export_weights=_export_roberta_weights,
)

XLM_ROBERTA = replace(ROBERTA, kind="xlm-roberta", name="XLMRobertaForMaskedLM", base_name="XLMRobertaModel")

DISTILBERT = replace(
    BERT,
    kind="distilbert",
    name="DistilBertForMaskedLM",
    sizes={
        "backbone.d_model": "dim",
        "backbone.n_layers": "n_layers",
        "backbone.n_heads": "n_heads",
        "backbone.d_ff": "hidden_dim",
        "backbone.dropout": "dropout",
    },
    fixed_hparams={**BERT.fixed_hparams, "backbone.norm_eps": 1e-12},
    required_config={"activation": ("gelu",), "tie_word_embeddings": (True,), "is_encoder_decoder": (False,)},
    defaults={"hidden_dim": 3072, "dropout": 0.1},
    inert=(
        "attention_dropout",
        "qa_dropout",
        "seq_classif_dropout",
        "sinusoidal_pos_embds",  # of the initialisation: the table is in the file
    ),
    base="distilbert.",
    base_name="DistilBertModel",
    head="vocab_projector.bias",
    weights=_weights(
        "distilbert.",
        "transformer.layer",
        DISTILBERT_BLOCK,
        {"up": "vocab_transform", "norm": "vocab_layer_norm", "bias": "vocab_projector.bias"},
    ),
    ignored=r"distilbert\.embeddings\.position_ids",
    copies={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
)

ELECTRA = replace(
    BERT,
    kind="electra",
    name="ElectraForMaskedLM",
    read=("embedding_size",),
    inert=(
        "attention_probs_dropout_prob",
        "classifier_dropout",
        "summary_activation",
        "summary_last_dropout",
        "summary_type",
        "summary_use_proj",
    ),
    base="electra.",
    base_name="ElectraModel",
    head="generator_lm_head.bias",
    weights=_weights(
        "electra.",
        "encoder.layer",
        BERT_BLOCK,
        {
            "up": "generator_predictions.dense",
            "norm": "generator_predictions.LayerNorm",
            "bias": "generator_lm_head.bias",
        },
    ),
    ignored=r"discriminator_predictions\.|electra\.embeddings\.position_ids",
    copies={"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
    import_config=_import_electra_config,
    export_config=lambda settings: {"embedding_size": settings["backbone.d_model"]},
)

ENCODERS = (BERT, ROBERTA, XLM_ROBERTA, DISTILBERT, ELECTRA)
