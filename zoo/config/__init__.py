"""Layer 2: composition of configurations by Hydra."""
