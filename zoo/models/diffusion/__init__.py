"""Diffusion models, flow matching, and their one-step and discrete relatives."""
