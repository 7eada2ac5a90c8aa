"""The variants of a study: one for each combination of the values of its sweeps."""
