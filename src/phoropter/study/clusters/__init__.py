"""Runs as tasks of a scheduler on several machines."""
