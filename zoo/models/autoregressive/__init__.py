"""Autoregressive models of text and pixels."""
