"""Correspondence of an architecture of the Hugging Face format and a model of the zoo."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from zoo.core.space import Space
from zoo.data.text.tokenizers.pretrained import Pretrained

Weights = dict[str, Tensor]
WeightConversion = Callable[[Weights, Mapping[str, Any], Pretrained | None], Weights]


def fused_attention(kind: str) -> tuple[str, ...]:
    """Our names of what other models keep as one tensor: queries, keys and values, of "weight" or "bias"."""
    return tuple(f"net.blocks.{{}}.attention.{part}.{kind}" for part in ("query", "key", "value"))


@dataclass(frozen=True)
class WeightMapping:
    """Equal weights under two names; several of our tensors may be the rows of one tensor.

    Args:
        ours: names in our state dict; `{}` is the index of a layer.
        theirs: name in the Hugging Face file.
        transposed: theirs is the transpose.
    """

    ours: str | tuple[str, ...]
    theirs: str
    transposed: bool = False


def pairs(ours: str, theirs: str, transposed: bool = False) -> list[WeightMapping]:
    """Map weight and bias of a linear map or norm."""
    return [
        WeightMapping(f"{ours}.weight", f"{theirs}.weight", transposed),
        WeightMapping(f"{ours}.bias", f"{theirs}.bias"),
    ]


@dataclass(frozen=True)
class Architecture:
    """A Hugging Face architecture, and the model of the zoo that implements it.

    Args:
        kind: `model_type` in config.json.
        name: class in `transformers`.
        model: registered name of our model.
        data: space that the model accepts.
        context: key of the number of positions in config.json, and its default.
        unused_positions: number of those that no token has, given config.json.
        sizes: our setting -> key in config.json; dots separate nested keys.
        fixed_hparams: values of our settings that the architecture implies.
        converted: those of them that an export may have otherwise, because `export_weights` converts them.
        required_config: keys of config.json, each with the values that our model supports; the first is exported.
        defaults: values that `transformers` takes for keys that config.json does not have.
        read: further keys that `import_config` reads.
        inert: further keys that do not change the logits, see `zoo.interop.huggingface.config`.
        weights: mapping of weights.
        base: prefix of the weights of an encoder, without which files of the encoder alone name them.
        base_name: class of the encoder alone in `transformers`.
        head: a weight without which a file has no head.
        prefix: prefix of weight names, absent in files of the bare model.
        ignored: pattern of weight names that our model does not use.
        copies: name of a weight that may be stored twice -> name of the equal one that is read.
        own: our settings that `import_config` and `export_config` convert.
        needed: our settings without which an export has another architecture.
        choices: values of those settings that the architecture has.
        import_config: our settings that depend on several keys of config.json.
        export_config: inverse of `import_config`; "tokenizer" among our settings is the model's, or None.
        import_weights: conversion of weights before the mapping, given config and tokenizer.
        export_weights: inverse of `import_weights`, given weights, config and our settings; "tokenizer" among them is
            a pretrained one, or None.
    """

    kind: str
    name: str
    model: str
    data: type[Space]
    context: tuple[str, int]
    sizes: Mapping[str, str]
    fixed_hparams: Mapping[str, Any]
    required_config: Mapping[str, tuple[Any, ...]]
    defaults: Mapping[str, Any]
    weights: tuple[WeightMapping, ...]
    unused_positions: Callable[[Mapping[str, Any]], int] = lambda config: 0
    base: str = ""
    base_name: str = ""
    head: str = ""
    prefix: str = ""
    read: tuple[str, ...] = ()
    inert: tuple[str, ...] = ()
    ignored: str = r"$^"
    converted: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    import_config: Callable[[Mapping[str, Any]], dict[str, Any]] = field(default=lambda config: {})
    export_config: Callable[[Mapping[str, Any]], dict[str, Any]] = field(default=lambda settings: {})
    import_weights: WeightConversion = lambda weights, config, tokenizer: weights
    export_weights: Callable[[Weights, Mapping[str, Any], Mapping[str, Any]], Weights] = (
        lambda weights, config, settings: weights
    )
