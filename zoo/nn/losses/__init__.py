"""Losses as pure functions, with equation numbers."""
