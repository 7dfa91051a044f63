"""Networks that a configuration chooses."""
