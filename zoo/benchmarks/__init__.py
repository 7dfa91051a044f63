"""Layer 7: speed measurements."""
