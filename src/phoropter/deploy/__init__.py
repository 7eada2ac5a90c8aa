"""What a finished bundle does elsewhere: predictions for new images and recordings."""
