"""CPU kernels, each beside its reference."""
