"""Pairs of candidates: the two questions that are asked of each, and the tests that answer them."""
