"""Sections for those who act on an answer: operating points, and the leaderboards of recordings and people."""
