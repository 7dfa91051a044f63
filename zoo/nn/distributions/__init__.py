"""Distributions and likelihoods."""
