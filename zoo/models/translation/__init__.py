"""Statistical machine translation."""
