"""Models that represent words, texts and pictures as vectors."""
