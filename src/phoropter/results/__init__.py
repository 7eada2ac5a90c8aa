"""What running leaves behind, and every number computed from it: NumPy and SciPy only."""
