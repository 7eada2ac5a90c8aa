"""Nouns in both numbers, for sentences."""
