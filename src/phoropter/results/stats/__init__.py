"""Intervals, paired tests and comparisons that know that folds overlap and that rows share groups."""
