"""Normalising flows: invertible transforms with a tractable Jacobian."""
