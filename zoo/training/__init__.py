"""Layer 6: the training job."""
