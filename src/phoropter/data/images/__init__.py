"""Decoding images once into a memory-mapped array of (N, 3, S, S) bytes, or streaming them behind the same interface."""
