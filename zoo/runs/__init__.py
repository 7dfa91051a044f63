"""Layer 4: one run on disk."""
