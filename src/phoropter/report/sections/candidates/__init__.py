"""Sections that compare candidates: leaderboard, pairwise comparisons, cost, sweeps, screening."""
