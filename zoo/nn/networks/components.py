"""Annotations of settings that choose a network."""

from typing import Annotated, Any

from zoo.core.signature import Component

Encoder = Annotated[str | dict[str, Any], Component("encoder")]  # data (B, *shape) -> features (B, out_dim)
Decoder = Annotated[str | dict[str, Any], Component("decoder")]  # vector (B, in_dim) -> data (B, *shape)

# A causal network: tokens (B, T) below n_in -> logits (B, T, n_out) of the next ones. It is registered as
# `f(n_in, n_out, context, end=None, *, settings)` and returns an nn.Module with the methods of
# `zoo.nn.samplers.autoregressive.IncrementalDecoder`. Where `end` is a token, it separates documents, and none attends
# to another. An optional attribute `blocks` holds the layers between
# embedding and head (see `zoo.nn.optim.muon.hidden_layers`).
Backbone = Annotated[str | dict[str, Any], Component("backbone")]

# A denoising network: noisy data (B, *shape), a quarter of the log-SNR (B,), labels (B,) or None for no class ->
# (B, n_out * C, ...). It is registered as `f(shape, n_out, n_classes, *, settings)`.
Denoiser = Annotated[str | dict[str, Any], Component("denoiser")]
