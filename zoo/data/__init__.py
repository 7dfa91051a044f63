"""Datamodules: what a sample is, and how it gets into a batch."""
