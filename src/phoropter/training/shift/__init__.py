"""Trained classifiers on rows as they were not recorded."""
