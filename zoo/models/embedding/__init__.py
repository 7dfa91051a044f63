"""Models that represent words and texts as vectors."""
