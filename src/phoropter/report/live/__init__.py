"""The page of a study that is still running, served on the loopback interface."""
