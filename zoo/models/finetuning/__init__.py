"""Fine-tuning of language models."""
