"""Every source of pictures becomes a Dataset, a Dataset becomes Pixels, labels and groups become Splits. No torch."""
