"""Which rows are read when, and how they reach the device."""
