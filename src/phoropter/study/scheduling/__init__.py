"""Which runs come first under a budget of time, and when they end."""
