"""Layer 5: evaluation of trained models."""
