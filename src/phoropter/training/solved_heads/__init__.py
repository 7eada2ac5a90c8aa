"""Heads of frozen backbones that are solved, not trained: logistic regressions on features, and on stacked logits."""
