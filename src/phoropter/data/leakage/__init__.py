"""What a split lets through: shared groups, overlapping windows, duplicates, conflicting labels."""
