"""A first study from a path: what lies there, who belongs together, what this machine can compute in the time given."""
