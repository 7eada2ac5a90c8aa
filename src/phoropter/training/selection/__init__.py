"""Ensemble selection: which members of an average count, and how much, by rows of the training part."""
