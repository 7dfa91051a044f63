"""Feature extractors for sample metrics."""
