"""Networks of samples, of one dimension."""
