"""Recommendation of items from implicit feedback."""
