"""One training in parts: several processes with a share of each batch, and micro-batches where memory is short"""
