"""Measures of recordings: heart rate variability and the features of a cardiotocogram."""
