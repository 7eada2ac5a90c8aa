"""What a command line changes in a study."""
