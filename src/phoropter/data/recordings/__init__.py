"""Recordings rendered as images: databases, representations, and the Dataset of their windows."""
