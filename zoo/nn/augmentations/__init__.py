"""Random changes of images that gradients pass through."""
