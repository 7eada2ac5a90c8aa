"""Figures of candidates, predictions and cost, drawn by Matplotlib."""
