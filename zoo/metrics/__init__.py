"""Layer 2: metrics as pure functions of tensors and texts."""
