"""Results of recordings and people, operating points and curves, aggregated for the page."""
