"""Sections about predictions: classes, groups, confusion, calibration, embedding, mistakes."""
