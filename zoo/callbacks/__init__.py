"""What a run writes besides weights: progress, pictures, curves."""
