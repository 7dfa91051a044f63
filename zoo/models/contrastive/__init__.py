"""Models that are trained to tell which data belong together."""
