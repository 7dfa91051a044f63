"""Statistical machine translation: word alignment, phrases, and search."""
