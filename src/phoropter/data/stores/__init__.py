"""Data in object stores."""
