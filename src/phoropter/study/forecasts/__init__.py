"""What a planned study could find, before anything is computed."""
