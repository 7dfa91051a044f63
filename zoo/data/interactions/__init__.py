"""Implicit feedback: users and the items that they chose."""
