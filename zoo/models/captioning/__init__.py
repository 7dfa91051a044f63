"""Models of texts that describe pictures."""
