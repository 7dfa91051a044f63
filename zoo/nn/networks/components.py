"""Annotations of settings that choose a network."""

from typing import Annotated, Any

from zoo.core.signature import Component

Encoder = Annotated[str | dict[str, Any], Component("encoder")]  # data (B, *shape) -> features (B, out_dim)
Backbone = Annotated[str | dict[str, Any], Component("backbone")]  # tokens (B, T) -> next logits (B, T, V), causal
Decoder = Annotated[str | dict[str, Any], Component("decoder")]  # vector (B, in_dim) -> data (B, *shape)
