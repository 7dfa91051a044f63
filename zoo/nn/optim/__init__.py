"""Optimizers, learning-rate schedules, weight averages."""
