"""Layer 1: files and formats."""
