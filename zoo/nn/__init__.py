"""Layer 1: networks, losses, distributions, samplers and optimizers; nothing of Lightning."""
