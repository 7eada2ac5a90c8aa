"""Tensors in, tensors out; knows no dataset. `spec` and `catalog` are free of torch, the rest is not."""
