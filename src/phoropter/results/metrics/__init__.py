"""Metrics: from labels and probabilities to numbers."""
