"""Foundations: errors, files, named seeds, specs and extensions; standard library, NumPy and pydantic only."""
