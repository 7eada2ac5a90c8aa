"""A bundle as a file for other programs, run against the original before it is kept."""
