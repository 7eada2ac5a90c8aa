"""What runs leave behind and every number computed from it: NumPy and SciPy only."""
