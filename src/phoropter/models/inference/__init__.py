"""Networks as they only answer, and are trained no more."""
