"""Training the heads of many runs of one frozen candidate as one tensor program."""
