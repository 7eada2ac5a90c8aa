"""Every source becomes a Dataset; a Dataset becomes Pixels; its labels and groups become Splits. No torch."""
