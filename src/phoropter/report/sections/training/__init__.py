"""Sections about training: learning curves, fusion, distillation."""
