"""Sampling loops, and samplers for export."""
