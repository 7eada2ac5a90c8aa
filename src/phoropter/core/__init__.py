"""What everything stands on: errors, files, seeds, specs. Standard library, NumPy and pydantic only."""
