"""Metrics as pure functions of tensors and texts."""
