"""Layer 4: samples as pictures and text."""
