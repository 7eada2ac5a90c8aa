"""Trained runs on corrupted test rows."""
