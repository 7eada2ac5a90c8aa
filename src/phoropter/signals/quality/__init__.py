"""What the samples of a recording tell about themselves."""
