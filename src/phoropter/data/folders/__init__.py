"""Walks over folders of pictures, and the layouts in which datasets come: parts, classes, masks."""
