"""What a reader of results must know about the recordings, in sentences."""
