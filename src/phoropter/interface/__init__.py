"""What a Python session holds of a study: its results as tables and figures, and comparisons of predictions made elsewhere."""
