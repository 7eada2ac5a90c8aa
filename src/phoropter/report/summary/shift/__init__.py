"""How candidates answer on corrupted test rows."""
