"""Evaluation suites: groups of metrics."""
