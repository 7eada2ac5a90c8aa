"""Learning curves over the size of the training part, as the page shows them."""
