"""Shift: which corruptions a study asks for, the answers on corrupted rows, and what they lose."""
