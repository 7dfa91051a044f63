"""Layer 2: datamodules and loaders."""
