"""Negative controls: data from which a sound study can learn nothing, or only what it should not learn."""
