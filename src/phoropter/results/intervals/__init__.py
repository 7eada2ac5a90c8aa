"""Confidence intervals: resampled units, the rules that choose an interval, and one call for each."""
