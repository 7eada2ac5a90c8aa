"""Several processes on one study: the workers, and the parent that replaces and ends them."""
