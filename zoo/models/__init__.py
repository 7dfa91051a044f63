"""Layer 3: models. A folder is a family, a file is a model."""
