"""A bundle as a page and an interface over HTTP: limits, checks of every request, batches across requests."""
