"""Candidates and recipes as plain data; free of torch."""
