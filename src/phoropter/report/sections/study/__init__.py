"""Sections about the study itself: leakage audit, provenance."""
