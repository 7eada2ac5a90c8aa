"""What runs of one process read in common: loaded once, not for each of them."""
