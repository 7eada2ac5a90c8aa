"""Finding weight files and reading them without executing anything."""
