"""Tensors in, tensors out; no module here knows a dataset. `spec` and `catalog` are free of torch."""
