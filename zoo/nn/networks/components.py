"""Annotations of settings that choose a network."""

from typing import Annotated, Any

from zoo.core.signature import Component

Encoder = Annotated[str | dict[str, Any], Component("encoder")]  # data (B, *shape) -> features (B, out_dim)
Decoder = Annotated[str | dict[str, Any], Component("decoder")]  # vector (B, in_dim) -> data (B, *shape)

# A network between images and maps on a smaller grid, registered as `f(shape, n_latent, n_code, n_out, *, settings)`:
# see `zoo.nn.networks.spatial.SpatialResNet`.
SpatialAutoencoder = Annotated[str | dict[str, Any], Component("spatial_autoencoder")]

# A network over tokens below n_in that predicts tokens below n_out. It is registered as
# `f(n_in, n_out, context, *, settings)` and returns an nn.Module of one of these forms:
# - causal: tokens (B, T) -> logits (B, T, n_out) of the next ones, with the methods of
#   `zoo.nn.samplers.autoregressive.IncrementalDecoder`. Where it has an attribute `end`, a model may set this to the
#   token that separates documents, and none attends to another.
# - encoder-decoder: see `zoo.nn.networks.encoder_decoder.EncoderDecoder`.
# - encoder: see `zoo.nn.networks.transformer_encoder.TransformerEncoder`, whose methods are `features` and `forward`.
#   Where it has an attribute `padded`, a model without padding may set this to False.
# An optional attribute `blocks` holds the layers between embedding and head (see `zoo.nn.optim.muon.hidden_layers`).
Backbone = Annotated[str | dict[str, Any], Component("backbone")]

# A denoising network: noisy data (B, *shape), a quarter of the log-SNR (B,), labels (B,) or None for no class ->
# (B, n_out * C, ...). It is registered as `f(shape, n_out, n_classes, n_levels=1, context_width=0, *, settings)`; the
# defaults may be missing. One for flow maps is built with n_levels=2, and takes the noise level and the distance to a
# second one, (B, 2). One that reads texts is built with a `context_width`, and takes a fourth input,
# `zoo.nn.blocks.noise_embedding.Context`.
Denoiser = Annotated[str | dict[str, Any], Component("denoiser")]

# A network between images of one size, registered as `f(n_in, shape, *, settings)`: (B, n_in, H, W) -> (B, C, H, W).
Translator = Annotated[str | dict[str, Any], Component("translator")]
